"""The addresses of the app, below `/backup/`."""

from __future__ import annotations

from django.urls import path

from backup import views

app_name = "backup"

urlpatterns = [
    path("", views.index, name="index"),
    path("download/", views.download, name="download"),
    path("upload/", views.upload, name="upload"),
    path("upload/<str:upload>/", views.piece, name="upload_piece"),
    path("restore/", views.restore, name="restore"),
    path("restore/confirm/", views.confirm, name="confirm"),
    path("restore/cancel/", views.cancel, name="cancel"),
    path("restore/preview/<str:upload_id>/", views.preview, name="preview"),
    path("restore/preview/<str:upload_id>/photo/<str:sha256>/", views.preview_photo, name="preview_photo"),
    path("restore/question/<str:upload_id>/", views.question, name="question"),
    path("restore/<str:upload_id>/", views.progress, name="progress"),
    path("key/", views.key, name="key"),
    path("undo/", views.undo, name="undo"),
    path("empty-missing/", views.empty_missing, name="empty_missing"),
    path("run/", views.run, name="run"),
    path("status/", views.status, name="status"),
    path("acknowledge/", views.acknowledge, name="acknowledge"),
    path("locations/<str:name>/test/", views.test_location, name="test_location"),
    path("kept/<str:name>/", views.kept, name="kept"),
    path("kept/<str:name>/delete/", views.delete, name="kept_delete"),
    path("kept/<str:name>/label/", views.label, name="kept_label"),
    path("kept/<str:name>/pin/", views.pin, name="kept_pin"),
    path("kept/<str:name>/prove/", views.prove, name="kept_prove"),
]

from django.urls import path

from . import models, views

app_name = "core"
urlpatterns = [path("timeline/", views.Timeline.as_view(), name="timeline")]

# (folder of the URL, start of the URL names, model)
PAGES = [
    ("children", "child", models.Child),
    ("tags", "tag", models.Tag),
    ("timers", "timer", models.Timer),
    ("changes", "diaperchange", models.DiaperChange),
    ("feedings", "feeding", models.Feeding),
    ("medication", "medication", models.Medication),
    ("notes", "note", models.Note),
    ("pumping", "pumping", models.Pumping),
    ("sleep", "sleep", models.Sleep),
    ("temperature", "temperature", models.Temperature),
    ("tummy-time", "tummytime", models.TummyTime),
    ("bmi", "bmi", models.BMI),
    ("head-circumference", "head-circumference", models.HeadCircumference),
    ("height", "height", models.Height),
    ("weight", "weight", models.Weight),
]
for folder, name, model in PAGES:
    key = "<str:slug>" if model in (models.Child, models.Tag) else "<int:pk>"
    # Entries have no page of their own: their address is the form.
    edit = f"{folder}/{key}/" if issubclass(model, models.Entry) else f"{folder}/{key}/edit/"
    urlpatterns += [
        path(f"{folder}/", views.page(views.List, model, name), name=f"{name}-list"),
        path(f"{folder}/add/", views.page(views.Add, model, name), name=f"{name}-add"),
        path(edit, views.page(views.Update, model, name), name=f"{name}-update"),
        path(f"{folder}/{key}/delete/", views.page(views.Delete, model, name), name=f"{name}-delete"),
    ]
urlpatterns.append(path("children/<str:slug>/", views.ChildDetail.as_view(), name="child"))

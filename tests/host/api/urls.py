from core import models
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from . import views

router = DefaultRouter()
for prefix, model in {
    "bmi": models.BMI,
    "changes": models.DiaperChange,
    "children": models.Child,
    "feedings": models.Feeding,
    "head-circumference": models.HeadCircumference,
    "height": models.Height,
    "medication": models.Medication,
    "notes": models.Note,
    "pumping": models.Pumping,
    "sleep": models.Sleep,
    "tags": models.Tag,
    "temperature": models.Temperature,
    "timers": models.Timer,
    "tummy-times": models.TummyTime,
    "weight": models.Weight,
}.items():
    router.register(prefix, views.viewset(model))

app_name = "api"
urlpatterns = [path("api/", include(router.urls))]

import importlib

import pytest
from pace import slow_after


@pytest.fixture(params=slow_after(1, ["pytorch_lightning", "lightning.pytorch"]))
def lightning(request):
    """Both namespaces of Lightning: a user's Trainer may come from either."""
    return importlib.import_module(request.param)


@pytest.fixture
def loggers(lightning):
    return importlib.import_module(f"{lightning.__name__}.loggers")


@pytest.fixture
def monitors(lightning):
    return importlib.import_module(f"{lightning.__name__}.callbacks")

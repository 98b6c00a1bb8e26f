"""What the quick run leaves to the whole one: MindSpore compiles graphs for every engine, seconds each."""

import pytest

#: Of these files the quick run makes the tests named here on MindSpore too, and the others on PyTorch alone.
QUICK_ON_MINDSPORE = {
    "test_engine.py": ("test_padding_counts_for_nothing",),
    "test_enlarge.py": (),
    "test_loss.py": ("test_class_weights_of_any_size_give_the_weighted_mean",),
    "test_network.py": (),
    "test_slope.py": (),
    "test_mindspore.py": (
        "test_an_npu_is_named_only_where_somebody_names_it",
        "test_bfloat16_is_refused_where_the_device_has_none",
        "test_hf32_is_off_on_an_npu_at_every_level",
        "test_the_levels_say_what_they_are",
    ),
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name != "backends" or item.path.name not in QUICK_ON_MINDSPORE:
            continue
        parameters = getattr(item, "callspec", None)
        on_mindspore = item.path.name == "test_mindspore.py" or (
            parameters is not None and "mindspore" in parameters.id.split("-")
        )
        if on_mindspore and item.originalname not in QUICK_ON_MINDSPORE[item.path.name]:
            item.add_marker(pytest.mark.slow)

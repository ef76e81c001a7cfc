"""Which adapter runs an object."""

from __future__ import annotations

import importlib

from producers.adapters.port import FrameworkAdapter
from producers.runner.loading import BadWorkflow

ADAPTERS = {
    "langgraph": ("producers.adapters.langgraph", "langgraph"),
    "python": ("producers.adapters.python", ""),
}
"""Framework → (module with `adapter`, extra that installs what it needs). In the order of
detection.
"""
MARKS = {
    "langgraph": "langgraph",
    "crewai": "crewai",
    "autogen_agentchat": "autogen",
    "autogen_core": "autogen",
}
"""Root package of an object's class → framework."""


def adapter(framework: str) -> FrameworkAdapter:
    """The framework's adapter; raises `BadWorkflow` that says what to install."""
    if framework not in ADAPTERS:
        raise BadWorkflow(f"no adapter for framework {framework!r}; there is {', '.join(ADAPTERS)}")
    module, extra = ADAPTERS[framework]
    try:
        found: FrameworkAdapter = importlib.import_module(module).adapter
    except ImportError as error:
        raise BadWorkflow(
            f"{framework} is not installed here ({error}); install omium-platform[{extra}]"
        ) from error
    return found


def for_object(target: object, framework: str = "") -> FrameworkAdapter:
    """The adapter whose object this is; the declared framework is asked first."""
    names = [framework] if framework in ADAPTERS else []
    for name in [*names, *(name for name in ADAPTERS if name not in names)]:
        if (mark := _framework_of(target)) and mark != name:
            continue
        candidate = adapter(name)
        if candidate.detect(target):
            return candidate
    kind = type(target)
    raise BadWorkflow(
        f"a {kind.__module__}.{kind.__qualname__} cannot be run; "
        "expected a LangGraph graph or a function"
    )


def _framework_of(target: object) -> str:
    """The framework that defines the object's class, without importing any."""
    for kind in type(target).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in MARKS:
            return MARKS[root]
    return ""

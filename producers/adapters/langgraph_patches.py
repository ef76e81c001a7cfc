"""Two class-level patches of LangGraph's loop, for speed and order; correctness does not rest on
them.

1. A loop tells our checkpointer which tasks run beside one that puts its writes.
2. Writes and checkpoints of our checkpointer are stored on the thread that has them instead of a
   pool's: `durability`
   is `sync`, so the thread would only wait, and a checkpoint can then never overtake the writes
   that it follows from
   (LangGraph issue 8039).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import wraps
from typing import Any

from langgraph.constants import START, TAG_HIDDEN
from langgraph.pregel._executor import BackgroundExecutor
from langgraph.pregel._loop import PregelLoop, SyncPregelLoop

from producers.adapters.log_saver import LogSaver, Task

_MARK = "_omium_patched"


def patch() -> None:
    """Applies the patches; a second call changes nothing."""
    if not getattr(PregelLoop.put_writes, _MARK, False):
        _patch_put_writes()
        _patch_submit()


def _patch_put_writes() -> None:
    put_writes = PregelLoop.put_writes

    @wraps(put_writes)
    def noting(
        self: PregelLoop, task_id: str, writes: Sequence[tuple[str, Any]], *, cached: bool = False
    ) -> None:
        if isinstance(self.checkpointer, LogSaver) and hasattr(self, "tasks"):
            task = self.tasks.get(task_id)
            if task is not None:
                config = task.config or {}
                is_hidden = task.name == START or TAG_HIDDEN in (config.get("tags") or ())
                known = Task(
                    siblings=tuple(self.tasks),
                    metadata=config.get("metadata") or {},
                    is_hidden=is_hidden,
                )
                self.checkpointer.note_task(task_id, known)
        put_writes(self, task_id, writes, cached=cached)

    setattr(noting, _MARK, True)
    PregelLoop.put_writes = noting  # type: ignore[method-assign]


def _patch_submit() -> None:
    submit = BackgroundExecutor.submit

    @wraps(submit)
    def inline(
        self: BackgroundExecutor,
        fn: Callable[..., Any],
        *args: Any,
        __cancel_on_exit__: bool = False,
        __reraise_on_exit__: bool = True,
        **kwargs: Any,
    ) -> Future[Any]:
        if not _is_ours(fn):
            kwargs["__cancel_on_exit__"] = __cancel_on_exit__
            kwargs["__reraise_on_exit__"] = __reraise_on_exit__
            return submit(self, fn, *args, **kwargs)
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
            # As the executor itself does: raised when the loop ends, if nobody asked before.
            self.tasks[future] = (__cancel_on_exit__, __reraise_on_exit__)
        return future

    BackgroundExecutor.submit = inline  # type: ignore[method-assign]


def _is_ours(fn: Callable[..., Any]) -> bool:
    owner = getattr(fn, "__self__", None)
    name = getattr(fn, "__name__", "")
    if isinstance(owner, LogSaver):
        return name == "put_writes"
    return (
        isinstance(owner, SyncPregelLoop)
        and name == "_checkpointer_put_after_previous"
        and isinstance(owner.checkpointer, LogSaver)
    )

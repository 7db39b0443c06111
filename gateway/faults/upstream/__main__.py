"""Runs the scripted upstream: `python -m gateway.faults.upstream --port 0` prints `listening on http://127.0.0.1:PORT`."""

import argparse
import asyncio
import sys

from gateway.faults.upstream.app import start_upstream
from gateway.faults.upstream.script import ScriptError


def main() -> int:
    """Serve until terminated, or until standard input closes where `--until-stdin-closes` is given."""
    parser = argparse.ArgumentParser(prog="python -m gateway.faults.upstream", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--script", default="", help="what every request obeys, for example 'ttft=50;gap=5'")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end together with the parent process")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments))
    except (ScriptError, OSError) as problem:
        print(f"scripted upstream: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    server = await start_upstream(arguments.host, arguments.port, arguments.script)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"listening on http://{host}:{port}", flush=True)
    if not arguments.until_stdin_closes:
        await server.serve_forever()
    parent_left = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), parent_left.set)
    await parent_left.wait()


if __name__ == "__main__":
    sys.exit(main())

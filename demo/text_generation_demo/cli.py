"""`text-generation-demo`: adapters beside their model, in a terminal."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from text_generation_demo.app import DemoApp
from text_generation_demo.asking import Server, adapters_of
from text_generation_demo.recording import record
from text_generation_demo.serving import served
from text_generation_demo.styles import STYLES

MODEL = "smollm2"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, serve it, and show it; or show what a server has."""
    options = _parse(arguments)
    with _server(options) as url:
        app = DemoApp(Server(url, options.max_tokens), options.adapters or adapters_of(url))
        if options.record is None:
            app.run()
        else:
            record(app, options.ask, options.record)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="text-generation-demo", description=__doc__)
    parser.add_argument("--url", help="a server that runs; without it, one is started with two adapters of the demo's")
    parser.add_argument("--adapters", nargs="+", help="those to show, of a server; all that it has, if left out")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/kvrun/demo", help="of trained adapters")
    parser.add_argument("--train", action="store_true", help="train the two adapters, even if they are there")
    parser.add_argument("--max-tokens", type=int, default=60, help="of an answer")
    parser.add_argument("--record", type=Path, metavar="SVG", help="write a picture of an answer, without a terminal")
    parser.add_argument("--ask", default="What is Deep Learning?", help="the question for --record")
    return parser.parse_args(arguments)


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[str]:
    if options.url is not None:
        yield options.url.rstrip("/")
        return
    adapters = {style.name: options.folder / style.name for style in STYLES}
    if options.train or not all((place / "adapter_config.json").is_file() for place in adapters.values()):
        # PyTorch and transformers: only where something is trained.
        from text_generation_demo.teaching import teach
        from text_generation_demo.training import Recipe

        print("Training two small adapters, which takes some minutes once:")
        teach(MODEL, STYLES, options.folder, Recipe(), say=lambda line: print(f"\r{line}  ", end="", flush=True))
        print()
    print("Starting a server …")
    with served(MODEL, adapters, options.folder / "server.log") as url:
        yield url


if __name__ == "__main__":
    main()

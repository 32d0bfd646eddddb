"""Write down the text of Python's own `help()` topics for the parrot: `model/words.json` beside this file.

Nothing is fetched: `pydoc_data` is a part of the standard library. The same Python gives the same file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from pydoc_data.topics import topics

LEAST_WORDS = 20_000


def main() -> None:
    text = "\n".join(topics[name] for name in sorted(topics))
    # Words with the space before them, so that what is drawn is joined as it stood; code and tables are left out.
    lines = [line for line in text.splitlines() if re.match(r"^(   )?[A-Z\"(]?[a-z]", line)]
    words = re.findall(r"\s*\S+", " ".join(line.strip() for line in lines))
    if len(words) < LEAST_WORDS:
        raise SystemExit(f"only {len(words)} words: this Python has no help texts")
    vocabulary = sorted(set(words))
    number = {word: index for index, word in enumerate(vocabulary)}
    folder = Path(__file__).with_name("model")
    folder.mkdir(exist_ok=True)
    target = folder / "words.json"
    target.write_text(json.dumps({"words": vocabulary, "text": [number[word] for word in words]}), encoding="utf-8")
    print(f"wrote {target.name}, {len(words):,} words, {len(vocabulary):,} different ones")


if __name__ == "__main__":
    main()

"""docs/reliability.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_the_table_names_exists():
    text = (ROOT / 'docs' / 'reliability.md').read_text()
    here = None
    for file, name in re.findall(r'`(?:(test_\w+\.py))?(?:::)?(test_\w+)?`', text):
        here = file or here
        if here and (file or name):
            source = (ROOT / 'test' / here).read_text()
            assert not name or f'def {name}(' in source, f'{here}::{name}'
    assert here

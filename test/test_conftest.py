"""What the other tests rely on."""

import tempfile

import pytest
from conftest import free_domain


def test_a_domain_is_found_whoever_made_the_lock_files(monkeypatch, tmp_path):
    """Those of another user can only be read, and some not even that, like these folders."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for domain in range(1, 98):
        (tmp_path / f'dar_ros_test_domain_{domain}').mkdir()
    (tmp_path / 'dar_ros_test_domain_98').touch(0o444)
    with free_domain() as first, free_domain() as second:
        assert {first, second} == {98, 99}
        with pytest.raises(RuntimeError, match='99 test sessions'), free_domain():
            pass
    with free_domain() as again:
        assert again in (98, 99)

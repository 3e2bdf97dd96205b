"""A bundle that was tampered with is refused in one line that names the file."""

import ast
import json
from pathlib import Path

import pytest

import dar_ros
from dar_ros.bundle import FILES, open_bundle
from dar_ros.errors import BundleError


def edit(folder, **changes):
    path = folder / 'model.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder, *words):
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert '\n' not in message
    assert all(word in message for word in words), message


def test_the_bundled_model_opens(bundle):
    assert bundle.name == 'dar_tiny' and bundle.num_steps == len(bundle.grid_sizes) == len(
        bundle.sigma_factors
    )
    assert open_bundle(None).path.samefile(bundle.path)


def test_an_intact_copy_opens(copied_bundle):
    assert open_bundle(copied_bundle).input_size == [192, 256]


@pytest.mark.parametrize('name', FILES)
def test_changed_byte(copied_bundle, name):
    data = bytearray((copied_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied_bundle / name).write_bytes(data)
    refused(copied_bundle, name, 'copy')


def test_truncated_file(copied_bundle):
    data = (copied_bundle / 'step.onnx').read_bytes()
    (copied_bundle / 'step.onnx').write_bytes(data[:1000])
    refused(copied_bundle, 'step.onnx')


@pytest.mark.parametrize('name', [*FILES, 'model.json'])
def test_missing_file(copied_bundle, name):
    (copied_bundle / name).unlink()
    refused(copied_bundle, name, 'missing')


def test_missing_folder(tmp_path):
    refused(tmp_path / 'nowhere', 'no such folder', 'dar export')


def test_newer_schema(copied_bundle):
    edit(copied_bundle, schema=2)
    refused(copied_bundle, 'schema 2', 'update')


def test_broken_json(copied_bundle):
    text = (copied_bundle / 'model.json').read_text()
    (copied_bundle / 'model.json').write_text(text[:200])
    refused(copied_bundle, 'model.json')


@pytest.mark.parametrize('content', ['[]', '{}', 'null', '{"schema": "1"}'])
def test_json_of_another_kind(copied_bundle, content):
    (copied_bundle / 'model.json').write_text(content)
    refused(copied_bundle, 'model.json')


@pytest.mark.parametrize('name', ['../outside.onnx', '/etc/hostname'])
def test_path_that_leaves_the_folder(copied_bundle, name):
    files = json.loads((copied_bundle / 'model.json').read_text())['files']
    edit(copied_bundle, files={**files, name: {'sha256': '', 'size': 0}})
    refused(copied_bundle, name, 'leaves')


def test_a_link_is_judged_by_what_it_leads_to(copied_bundle, tmp_path):
    """Colcon's --symlink-install and Hugging Face's cache are made of links."""
    target = tmp_path / 'elsewhere.onnx'
    (copied_bundle / 'step.onnx').rename(target)
    (copied_bundle / 'step.onnx').symlink_to(target)
    assert open_bundle(copied_bundle).file('step.onnx').samefile(target)
    target.write_bytes(b'another')
    refused(copied_bundle, 'step.onnx', 'is not the file', 'sha256')


def test_unlisted_graph(copied_bundle):
    files = json.loads((copied_bundle / 'model.json').read_text())['files']
    del files['encoder.onnx']
    edit(copied_bundle, files=files)
    refused(copied_bundle, 'encoder.onnx')


@pytest.mark.parametrize('name', ['..', '.', '', 'a/b', './step.onnx', 'a\0b', '\\\\host\\x'])
def test_a_name_that_is_no_plain_file_name_is_refused(copied_bundle, name):
    files = json.loads((copied_bundle / 'model.json').read_text())['files']
    edit(copied_bundle, files={**files, name: {'sha256': '', 'size': 0}})
    with pytest.raises(BundleError, match='leaves the folder|is missing; copy the whole'):
        open_bundle(copied_bundle)


def test_nothing_in_the_package_unpickles():
    """Pickles run what their author wants; every loader must refuse them, and say so."""
    found = []
    for path in sorted(Path(dar_ros.__file__).parent.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call = ast.unparse(node.func)
            loads = call.split('.')[0] in ('pickle', 'dill', 'joblib', 'shelve')
            assert not loads, f'{path}:{node.lineno}'  # its exceptions may be caught
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if call in ('np.load', 'numpy.load'):
                found.append(path.name)
                assert given.get('allow_pickle') == 'False', f'{path}:{node.lineno}'
            if call == 'torch.load':
                found.append(path.name)
                assert given.get('weights_only') == 'True', f'{path}:{node.lineno}'
    assert 'bundle.py' in found

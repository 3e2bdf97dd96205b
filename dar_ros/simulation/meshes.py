"""
True-size furniture: the meshes of Debian's and Ubuntu's package sweethome3d-furniture.

Five libraries (`*.sh3f`, zip archives of Wavefront OBJ files with a catalogue of names and sizes
in centimetres), CC0 and CC-BY 3.0: https://www.sweethome3d.com/importModels.jsp
"""

import io
import re
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from dar_ros.errors import UsageError

FOLDER = Path('/usr/share/sweethome3d/furniture')
HELD_OUT = 0.15  # share of every category that only the test split sees
PARTS = 5  # materials of one thing; the smallest are painted as the largest
FACES = 30000  # of one thing: a rare tree has 200 000
TEXTURE_SIDE = 256  # pixels


@dataclass(frozen=True)
class Thing:
    """One piece of a library; sizes in metres."""

    name: str
    category: str
    library: str
    path: str  # of its OBJ file, within the library
    width: float
    depth: float
    height: float
    elevation: float  # of its lower end above the floor
    top: float  # height at which something can stand on it; 0: nowhere
    rotation: tuple  # row-major 3x3, of the file's axes

    @property
    def held_out(self):
        """Whether it is kept for the test split; a property of its name, not of a seed."""
        return zlib.crc32(self.path.encode()) % 1000 < 1000 * HELD_OUT


@dataclass
class Part:
    """Triangles of one material: front towards +x, z up, standing at z = 0, in metres."""

    vertices: np.ndarray  # (n, 3)
    faces: np.ndarray  # (m, 3)
    uv: np.ndarray | None  # (n, 2)
    color: tuple
    texture: np.ndarray | None  # uint8 (TEXTURE_SIDE, TEXTURE_SIDE, 3)


@cache
def catalogue():
    """Every Thing of every library, in a fixed order."""
    libraries = sorted(FOLDER.glob('*.sh3f'))
    if not libraries:
        raise UsageError(f'no furniture in {FOLDER}: apt-get install sweethome3d-furniture')
    things = []
    for library in libraries:
        with zipfile.ZipFile(library) as archive:
            text = archive.read('PluginFurnitureCatalog.properties').decode('latin1')
        entries = defaultdict(dict)
        for key, number, value in re.findall(r'^(\w+)#(\d+)=(.*?)\s*$', text, re.MULTILINE):
            entries[int(number)][key] = value
        things += [_thing(library, e) for _, e in sorted(entries.items()) if 'model' in e]
    return tuple(things)


def _thing(library, entry):
    meters = {
        key: float(entry.get(key, 0)) / 100
        for key in ('width', 'depth', 'height', 'elevation', 'dropOnTopElevation')
    }
    identity = '1 0 0 0 1 0 0 0 1'
    return Thing(
        entry['name'].lower(),
        entry['category'].lower(),
        str(library),
        entry['model'].lstrip('/'),
        meters['width'],
        meters['depth'],
        meters['height'],
        meters['elevation'],
        meters['dropOnTopElevation'] if 'dropOnTopElevation' in entry else meters['height'],
        tuple(float(v) for v in entry.get('modelRotation', identity).split()),
    )


# Roles: what a thing is for in a room, by its name and size.
ROLES = {
    'chair': lambda t: re.search(r'chair|stool', t.name) and 0.6 < t.height < 1.3 and t.depth < 1,
    'table': lambda t: (
        re.search(r'\btable\b|\bdesk\b', t.name)
        and not re.search(r'bedside|tennis|fan|football|dressing|changing|pool|bar\b', t.name)
        and t.width > 0.55
        and 0.6 < t.height < 1.2
    ),
    'low': lambda t: (
        re.search(r'table|ottoman|bench', t.name) and t.height <= 0.6 and t.depth > 0.3
    ),
    'sofa': lambda t: re.search(r'sofa|couch|armchair', t.name) and t.depth > 0.6,
    'bed': lambda t: t.category == 'bedroom' and re.search(r'\bbed\b', t.name) and t.depth > 1.7,
    'storage': lambda t: (
        re.search(
            r'wardrobe|cupboard|bookcase|shelves|\bchest|dresser|cabinet|bedside|piano|safe|locker',
            t.name,
        )
        and t.height > 0.4
        and t.category != 'kitchen'
    ),
    'person': lambda t: t.category == 'characters' and t.height > 1.5 and t.depth < 0.7,
    'vehicle': lambda t: t.category == 'vehicles' and t.depth < 7,
    'door': lambda t: re.search(r'\bdoor$|double door', t.name) and 1.9 < t.height < 2.3,
    'garden': lambda t: t.category == 'exterior' and t.height > 0.3 and t.elevation == 0,
    'kitchen': lambda t: t.category == 'kitchen' and t.height > 0.55 and t.width > 0.3,
    'bathroom': lambda t: t.category == 'bathroom' and t.height > 0.3 and t.width > 0.3,
    'hung': lambda t: (
        0 < t.elevation < 2.0
        and t.category in ('miscellaneous', 'lights')
        and t.depth < 0.4
        and t.width > 0.1
    ),
    'small': lambda t: (
        t.elevation == 0
        and 0.05 < t.height < 0.5
        and 0.05 < max(t.width, t.depth) < 0.6
        and t.category not in ('vehicles', 'bathroom', 'exterior')
    ),
    'standing': lambda t: (
        t.elevation == 0
        and 0.3 < t.height < 2.3
        and 0.15 < max(t.width, t.depth) < 2.2
        and t.category in ('living room', 'miscellaneous', 'office', 'bedroom', 'lights')
    ),
}
# How many of each a renderer holds; a thing of two roles counts for the first that asks.
STOCK = {
    'chair': 9,
    'table': 6,
    'low': 4,
    'sofa': 6,
    'bed': 3,
    'storage': 8,
    'person': 4,
    'vehicle': 3,
    'door': 3,
    'garden': 6,
    'kitchen': 10,
    'bathroom': 8,
    'hung': 4,
    'small': 14,
    'standing': 12,
}
ONLY_TESTED = ('kitchen', 'bathroom')  # rooms that are never trained on


def choose_stock(rng, held_out):
    """{role: things} for one renderer: of the test split, or of what may be trained on."""
    chosen, stock = set(), {}
    for role, count in STOCK.items():
        if role in ONLY_TESTED and not held_out:
            continue
        # Rooms that are never trained on need no second hold-out.
        able = [
            t
            for t in catalogue()
            if t not in chosen
            and (t.held_out == held_out or role in ONLY_TESTED)
            and max(t.width, t.depth, t.height) < 8
            and ROLES[role](t)
        ]
        picked = [able[i] for i in rng.permutation(len(able))[:count]]
        chosen.update(picked)
        stock[role] = picked
    return stock


def load_parts(thing):
    """Triangles and materials of a Thing at its true size -> [Part], the largest first."""
    import trimesh

    with zipfile.ZipFile(thing.library) as archive:
        resolver = trimesh.resolvers.ZipResolver(
            {name: io.BytesIO(archive.read(name)) for name in _folder(archive, thing.path)},
            namespace=str(Path(thing.path).parent),
        )
        scene = trimesh.load(
            io.BytesIO(archive.read(thing.path)),
            file_type='obj',
            resolver=resolver,
            group_material=True,
            split_object=False,
            process=False,
        )
    meshes = scene.dump() if hasattr(scene, 'dump') else [scene]
    meshes = [m for m in meshes if len(m.faces) and not _transparent(m)]
    if not meshes or sum(len(m.faces) for m in meshes) > FACES:
        return []
    meshes.sort(key=lambda m: -m.area)
    turn = np.array(thing.rotation).reshape(3, 3)
    vertices = [np.asarray(m.vertices) @ turn.T for m in meshes]
    low = np.min([v.min(0) for v in vertices], 0)
    extent = np.maximum(np.max([v.max(0) for v in vertices], 0) - low, 1e-6)
    size = np.array([thing.width, thing.height, thing.depth])
    parts = []
    for mesh, v in zip(meshes, vertices, strict=True):
        x, y, z = ((v - low) / extent * size - size * [0.5, 0, 0.5]).T
        color, texture, uv = _finish(mesh)
        parts.append(Part(np.stack([z, x, y], 1), np.asarray(mesh.faces), uv, color, texture))
    return parts[: PARTS - 1] + _merged(parts[PARTS - 1 :])


def _folder(archive, path):
    folder = str(Path(path).parent) + '/'
    return [n for n in archive.namelist() if n.startswith(folder) and not n.endswith('/')]


def _transparent(mesh):
    diffuse = getattr(getattr(mesh.visual, 'material', None), 'diffuse', None)
    return diffuse is not None and len(diffuse) == 4 and diffuse[3] < 128


def _finish(mesh):
    """Colour, texture and texture coordinates of a trimesh."""
    material = getattr(mesh.visual, 'material', None)
    color = np.array(getattr(material, 'diffuse', (180, 180, 180)), float)[:3] / 255
    image, uv = getattr(material, 'image', None), getattr(mesh.visual, 'uv', None)
    if image is None or uv is None or len(uv) != len(mesh.vertices):
        return tuple(np.clip(color, 0.03, 1)), None, None
    pixels = np.asarray(image.convert('RGB'))
    texture = cv2.resize(pixels, (TEXTURE_SIDE,) * 2, interpolation=cv2.INTER_AREA)
    return (1.0, 1.0, 1.0), texture, np.asarray(uv)


def _merged(parts):
    if not parts:
        return []
    starts = np.cumsum([0] + [len(p.vertices) for p in parts])
    return [
        Part(
            np.concatenate([p.vertices for p in parts]),
            np.concatenate([p.faces + s for p, s in zip(parts, starts, strict=False)]),
            None,
            parts[0].color,
            None,
        )
    ]

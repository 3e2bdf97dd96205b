"""
A MuJoCo scene of pooled primitives, altered in place, and one rendering context: RGB and exact
depth.
"""

import math
import os
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from dar_ros.cures import extra_install
from dar_ros.datasets.frames import Frame
from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.simulation.textures import SIDE, texture_pool

# Without a display, software rendering; MUJOCO_GL=egl or glfw chooses otherwise.
_GL = os.environ.get('MUJOCO_GL') or ('glfw' if os.environ.get('DISPLAY') else 'osmesa')
# torch's compiler brings an LLVM of its own. Loaded after OSMesa's it crashes the process.
with suppress(ImportError):
    import triton._C.libtriton  # noqa: F401
try:
    import mujoco

    if _GL == 'osmesa':
        # Not mujoco.GLContext: its choice was made by whoever imported mujoco first.
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
except (
    ImportError,
    AttributeError,
) as error:  # PyOpenGL raises the latter where the library is missing
    raise UsageError(
        f'the simulator cannot render with {_GL} ({error}): {extra_install("sim")}, '
        'apt-get install libosmesa6'
    ) from None

BOX, CYLINDER, ELLIPSOID, CAPSULE = 'box', 'cylinder', 'ellipsoid', 'capsule'
POOL = {BOX: 230, CYLINDER: 50, ELLIPSOID: 40, CAPSULE: 20}
NEAR, FAR = 0.03, 1000.0  # metres
# MuJoCo draws the sky as a box of half side FAR / sqrt(3). Towards the corner of a wide picture
# its depth along the optical axis is half of that; scenes end at 150 m.
SKY = 0.25 * FAR
LIGHTS = 3
UNUSED = (0.0, 0.0, -500.0)
SHOWN, HIDDEN = 0, 5  # geom groups


@dataclass
class Primitive:
    """
    One textured solid; half sizes in metres, as MuJoCo has them; `yaw` in radians about the
    vertical.
    """

    shape: str  # one of POOL, or the name of a mesh of the renderer's stock
    center: tuple
    size: tuple
    yaw: float = 0.0
    material: str = 'plain'
    color: tuple = (1.0, 1.0, 1.0)
    tilt: tuple = ()  # quaternion (w x y z) applied before the yaw


@dataclass
class Light:
    """A point light or, with a direction, the sun."""

    position: tuple
    diffuse: float
    direction: tuple = (0.0, 0.0, -1.0)
    sun: bool = False
    shadow: bool = False


class Renderer:
    """
    One GL context and one compiled model.

    `load` puts a list of primitives and lights in place (milliseconds); `render` takes a picture.
    A new texture pool costs a context; scenes of one renderer share it.
    """

    def __init__(self, height, width, seed=0, stock=None):
        self.height, self.width = height, width
        pool = texture_pool(np.random.default_rng((seed, 7)))
        meshes = stock.meshes if stock else {}
        spec = mujoco.MjSpec.from_string(_xml(pool, height, width))
        _add_meshes(spec, meshes)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.model.geom_sameframe[:] = 0  # compiled as unrotated: else geom_quat would be ignored
        self._fill_textures(pool)
        self._find_meshes(meshes)
        self.variants = {}
        for i, (kind, _, _) in enumerate(pool):
            self.variants.setdefault(kind, []).append(i)
        self.ids = {
            shape: [self.model.geom(f'{shape}{i}').id for i in range(count)]
            for shape, count in POOL.items()
        }
        self.gl = GLContext(width, height)
        self.gl.make_current()
        self.context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        self.context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self.scene = mujoco.MjvScene(self.model, maxgeom=self.model.ngeom + 10)
        self.options = mujoco.MjvOption()
        self.camera = mujoco.MjvCamera()
        self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = 0
        self.viewport = mujoco.MjrRect(0, 0, width, height)

    def close(self):
        """Free the GL context."""
        self.gl.make_current()  # else what another renderer calls by the same numbers is freed
        self.context.free()
        self.gl.free()

    def _fill_textures(self, pool):
        for i, (_, image, _) in enumerate(pool):
            for name in (f'flat{i}', f'cube{i}'):
                texture = self.model.texture(name).id
                start = self.model.tex_adr[texture]
                copies = self.model.tex_height[texture] // SIDE
                data = np.tile(image, (copies, 1, 1)).reshape(-1)
                self.model.tex_data[start : start + data.size] = data

    def _find_meshes(self, meshes):
        """Fill the meshes' textures; note their geoms as {name: [copy: [(geom, colour)]]}."""
        self.copies = {}
        for name, mesh in meshes.items():
            for i, part in enumerate(mesh.parts):
                if part.texture is not None:
                    start = self.model.tex_adr[self.model.texture(f'{name}.{i}').id]
                    data = np.flipud(part.texture).reshape(-1)
                    self.model.tex_data[start : start + data.size] = data
            self.copies[name] = [
                [
                    (self.model.geom(f'{name}.{i}.{copy}').id, np.array(part.color))
                    for i, part in enumerate(mesh.parts)
                ]
                for copy in range(mesh.copies)
            ]

    def load(self, primitives, lights, headlight=0.3, ambient=0.3):
        """
        Replace the scene; primitives beyond the pool are left out. Materials are
        '<kind>/<sheet|solid>/<n>'.
        """
        model, free = self.model, {shape: iter(ids) for shape, ids in self.ids.items()}
        free |= {name: iter(copies) for name, copies in self.copies.items()}
        model.geom_pos[:], model.geom_group[:] = UNUSED, HIDDEN
        for p in primitives:
            geom = next(free[p.shape], None)
            if geom is None:
                continue
            if p.shape in self.copies:
                self._place_mesh(p, geom)
                continue
            model.geom_group[geom] = SHOWN
            model.geom_pos[geom], model.geom_size[geom] = p.center, _padded(p.size)
            yaw = np.array([math.cos(p.yaw / 2), 0, 0, math.sin(p.yaw / 2)])
            if p.tilt:
                mujoco.mju_mulQuat(model.geom_quat[geom], yaw, np.array(p.tilt, float))
            else:
                model.geom_quat[geom] = yaw
            model.geom_rbound[geom] = float(np.linalg.norm(p.size)) * 1.5
            model.geom_rgba[geom] = (*np.clip(p.color, 0, 1), 1)
            model.geom_matid[geom] = self._material(p.material)
        for i in range(LIGHTS):
            light = lights[i] if i < len(lights) else None
            model.light_active[i] = light is not None
            if light is not None:
                model.light_pos[i], model.light_dir[i] = light.position, light.direction
                model.light_diffuse[i] = light.diffuse
                model.light_type[i] = (
                    mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
                    if light.sun
                    else mujoco.mjtLightType.mjLIGHT_POINT
                )
                model.light_castshadow[i] = light.shadow
        model.vis.headlight.diffuse[:] = headlight
        model.vis.headlight.ambient[:] = ambient

    def _place_mesh(self, p, parts):
        """Show a mesh at a Primitive's centre (its foot), yaw and tint."""
        model, c, s = self.model, math.cos(p.yaw), math.sin(p.yaw)
        yaw = np.array([math.cos(p.yaw / 2), 0, 0, math.sin(p.yaw / 2)])
        for geom, color in parts:
            # MuJoCo keeps a mesh in the frame of its own inertia.
            mesh = model.geom_dataid[geom]
            x, y, z = model.mesh_pos[mesh]
            model.geom_pos[geom] = np.array(p.center) + (c * x - s * y, s * x + c * y, z)
            mujoco.mju_mulQuat(model.geom_quat[geom], yaw, model.mesh_quat[mesh])
            model.geom_rgba[geom] = (*np.clip(color * p.color, 0, 1), 1)
            model.geom_group[geom] = SHOWN

    def _material(self, name):
        if name == 'plain':
            return -1
        kind, mapping, number = name.split('/')
        variants = self.variants[kind]
        return self.model.material(f'{mapping}{variants[int(number) % len(variants)]}').id

    def render(self, position, yaw, pitch, roll, hfov):
        """
        Picture from `position` (x, y, z up); angles in radians, `pitch` up positive; hfov in
        degrees -> Frame.
        """
        model = self.model
        intrinsics = Intrinsics.from_fov(hfov, self.width, self.height)
        model.cam_fovy[0] = math.degrees(2 * math.atan(self.height / 2 / intrinsics.fy))
        model.cam_pos[0] = position
        model.cam_quat[0] = camera_quaternion(yaw, pitch, roll)
        mujoco.mj_kinematics(model, self.data)
        mujoco.mj_camlight(model, self.data)
        mujoco.mjv_updateScene(
            model,
            self.data,
            self.options,
            None,
            self.camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self.scene,
        )
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = bool(model.light_castshadow.any())
        self.gl.make_current()  # another renderer may have been used since
        mujoco.mjr_render(self.viewport, self.scene, self.context)
        image = np.empty((self.height, self.width, 3), np.uint8)
        raw = np.empty((self.height, self.width), np.float32)
        mujoco.mjr_readPixels(image, raw, self.viewport, self.context)
        return Frame(np.flipud(image), planar_depth(np.flipud(raw)), intrinsics)


def planar_depth(raw):
    """Reversed depth buffer (1 near, 0 far) -> metres along optical Z; the sky is +inf."""
    depth = 1 / (raw.astype(np.float64) * (1 / NEAR - 1 / FAR) + 1 / FAR)
    return np.where(depth < SKY, depth, np.inf).astype(np.float32)


def camera_quaternion(yaw, pitch, roll):
    """Quaternion of a MuJoCo camera (looks along -z, y up) that looks along heading `yaw`."""

    def turn(angle, *axis):
        return np.array([math.cos(angle / 2), *(math.sin(angle / 2) * a for a in axis)])

    result = turn(yaw - math.pi / 2, 0, 0, 1)
    for part in (turn(math.pi / 2 + pitch, 1, 0, 0), turn(roll, 0, 0, 1)):
        product = np.empty(4)
        mujoco.mju_mulQuat(product, result, part)
        result = product
    return result


def _padded(size):
    return (*size, *(0,) * (3 - len(size)))


def _add_meshes(spec, meshes):
    """Every part as an asset with a texture of its own, and the geoms of every copy."""
    for name, mesh in meshes.items():
        for i, part in enumerate(mesh.parts):
            part_name = f'{name}.{i}'
            asset = spec.add_mesh(
                name=part_name,
                uservert=part.vertices.astype(np.float32).ravel(),
                userface=part.faces.astype(np.int32).ravel(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
            )
            material = ''
            if part.texture is not None:
                # MuJoCo turns texture coordinates upside down.
                asset.usertexcoord = part.uv.astype(np.float32).ravel()
                side = part.texture.shape[0]
                spec.add_texture(
                    name=part_name,
                    type=mujoco.mjtTexture.mjTEXTURE_2D,
                    builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
                    width=side,
                    height=side,
                )
                material = part_name
                made = spec.add_material(name=part_name)
                made.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = part_name
            for copy in range(mesh.copies):
                spec.worldbody.add_geom(
                    name=f'{part_name}.{copy}',
                    type=mujoco.mjtGeom.mjGEOM_MESH,
                    meshname=part_name,
                    material=material,
                    contype=0,
                    conaffinity=0,
                )


def auto_exposed(image):
    """Return an image, uint8 (H, W, 3), as a camera that sets its exposure by the mean has it."""
    gain = min(118 / max(image.mean(), 8), 4)
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def _xml(pool, height, width):
    assets, geoms = [], []
    for i, (_, _, meters) in enumerate(pool):
        assets.append(
            f'<texture name="flat{i}" type="2d" builtin="flat" width="{SIDE}" height="{SIDE}"/>'
            f'<texture name="cube{i}" type="cube" builtin="flat" width="{SIDE}" height="{SIDE}"/>'
            f'<material name="sheet{i}" texture="flat{i}" texuniform="true" '
            f'texrepeat="{1 / meters} {1 / meters}" specular="0.1" shininess="0.2"/>'
            f'<material name="solid{i}" texture="cube{i}" specular="0.2" shininess="0.3"/>'
        )
    for shape, count in POOL.items():
        geoms += [
            f'<geom name="{shape}{i}" type="{shape}" size="0.1 0.1 0.1" pos="0 0 -500" '
            'contype="0" conaffinity="0"/>'
            for i in range(count)
        ]
    lights = '<light pos="0 0 3" dir="0 0 -1" attenuation="1 0.05 0.01" cutoff="180"/>' * LIGHTS
    # extent 1 makes znear and zfar metres.
    return f"""<mujoco><statistic extent="1" center="0 0 0"/>
      <visual><map znear="{NEAR}" zfar="{FAR}"/>
      <quality shadowsize="1024" offsamples="0" numquads="8"/>
      <global offwidth="{width}" offheight="{height}"/></visual>
      <asset><texture type="skybox" builtin="gradient" rgb1="0.85 0.9 0.97" rgb2="0.55 0.7 0.93"
      width="128" height="128"/>{''.join(assets)}</asset>
      <worldbody><camera name="eye"/>{lights}{''.join(geoms)}</worldbody></mujoco>"""

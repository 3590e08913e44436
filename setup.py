"""Build `pythia_fast._core` with CMake and Ninja; everything else stands in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

import cmake
import ninja
import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
# The tools of this environment, even where it is not activated.
CMAKE = str(Path(cmake.CMAKE_BIN_DIR, "cmake"))
NINJA = str(Path(ninja.BIN_DIR, "ninja"))


class CMakeBuild(build_ext):
    """Configure, build and put the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        """Build `ext`; extra CMake options come from the environment's CMAKE_ARGS."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve()
        configure = [
            *(CMAKE, "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={NINJA}",
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        subprocess.run(configure, check=True)
        subprocess.run([CMAKE, "--build", str(build)], check=True)


setup(ext_modules=[Extension("pythia_fast._core", sources=[])], cmdclass={"build_ext": CMakeBuild})

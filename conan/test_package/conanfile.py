# SPDX-License-Identifier: Apache-2.0
"""Builds a third party's plugin against the package and has the packaged lmkit read it."""

import os

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, cmake_layout


class TestPackage(ConanFile):
    settings = "os", "arch", "compiler", "build_type"
    generators = "CMakeToolchain", "CMakeDeps", "VirtualRunEnv"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        if can_run(self):
            plugin = os.path.abspath(os.path.join(self.cpp.build.bindir, "half-pool.so"))
            self.run(f"lmkit plugin inspect {plugin}", env="conanrun")
            self.run("lmkit plugin list", env="conanrun")

# SPDX-License-Identifier: Apache-2.0
"""lmkit as a Conan 2 package, built with the system's libraries (tools/packages.txt lists them).

    conan create conan --profile:all conan/profiles/system --no-remote
"""

import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load


class Lmkit(ConanFile):
    name = "lmkit"
    package_type = "application"
    license = "Apache-2.0"
    description = "Runs large language models where memory is short: KV codecs, parallel strategies and memory policies as plugins"
    topics = ("llm", "inference", "kv-cache", "quantization")
    settings = "os", "arch", "compiler", "build_type"
    options = {"cuda": [True, False, "auto"]}
    default_options = {"cuda": "auto"}
    no_copy_source = True

    def set_version(self):
        project = load(self, os.path.join(self.recipe_folder, "..", "CMakeLists.txt"))
        self.version = re.search(r"project\(lmkit VERSION ([0-9.]+)", project).group(1)

    def export_sources(self):
        root = os.path.join(self.recipe_folder, "..")
        for pattern in ("CMakeLists.txt", "core/*", "kernels/*", "plugins/*", "tools/*", "conan/*"):
            copy(self, pattern, root, self.export_sources_folder, excludes="*/__pycache__/*")

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["LMKIT_TESTS"] = False
        toolchain.cache_variables["LMKIT_CUDA"] = {"True": "ON", "False": "OFF"}.get(str(self.options.cuda), "AUTO")
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")  # lmkit-config.cmake comes with the package
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "lmkit")]
        self.buildenv_info.prepend_path("PATH", os.path.join(self.package_folder, "bin"))
        self.runenv_info.prepend_path("PATH", os.path.join(self.package_folder, "bin"))

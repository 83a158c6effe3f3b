# SPDX-License-Identifier: Apache-2.0
#
# For a plugin that is built on its own against lmkit's source tree instead of an installed package:
#     include(<lmkit>/plugins/sdk/SourceTree.cmake)
#     lmkit_add_plugin(…)
include_guard(GLOBAL)
get_filename_component(source ${CMAKE_CURRENT_LIST_DIR}/../.. ABSOLUTE)
add_library(lmkit::plugin_sdk INTERFACE IMPORTED GLOBAL)
target_compile_features(lmkit::plugin_sdk INTERFACE cxx_std_20)
target_include_directories(lmkit::plugin_sdk INTERFACE ${source}/core/include ${source}/kernels/include ${source}/plugins/sdk/include)
include(${CMAKE_CURRENT_LIST_DIR}/LmkitPlugin.cmake)

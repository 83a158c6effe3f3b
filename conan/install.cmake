# SPDX-License-Identifier: Apache-2.0
#
# What `cmake --install` puts where, and the package that find_package(lmkit) finds there:
#     bin/lmkit   lib/lmkit/plugins/*.so   lib/*.a   include/lmkit/   lib/cmake/lmkit/
# Targets: lmkit::abi lmkit::concepts lmkit::kernels lmkit::plugin_sdk lmkit::core, and the function lmkit_add_plugin.
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lmkit)

set(libraries)
foreach(name abi concepts kernels plugin_sdk core base text model plugin builtin engine)
  if(TARGET lmkit_${name})
    set_target_properties(lmkit_${name} PROPERTIES EXPORT_NAME ${name})
    list(APPEND libraries lmkit_${name})
  endif()
endforeach()
install(TARGETS ${libraries} EXPORT lmkit ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT lmkit NAMESPACE lmkit:: FILE lmkit-targets.cmake DESTINATION ${package_dir})

foreach(room core kernels plugins/sdk)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${room}/include/lmkit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endforeach()

file(GLOB plugins RELATIVE ${PROJECT_SOURCE_DIR}/plugins ${PROJECT_SOURCE_DIR}/plugins/*/plugin.cpp)
foreach(plugin ${plugins})
  get_filename_component(plugin ${plugin} DIRECTORY)
  if(TARGET ${plugin})
    install(TARGETS ${plugin} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/lmkit/plugins)
  endif()
endforeach()

if(TARGET lmkit-cuda)
  install(TARGETS lmkit-cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/lmkit)
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/lmkit-config.cmake.in ${PROJECT_BINARY_DIR}/lmkit-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lmkit-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lmkit-config.cmake ${PROJECT_BINARY_DIR}/lmkit-config-version.cmake
              ${PROJECT_SOURCE_DIR}/plugins/sdk/LmkitPlugin.cmake ${PROJECT_SOURCE_DIR}/plugins/sdk/exports.map
              ${PROJECT_SOURCE_DIR}/kernels/cpu/cpu_isa.cpp DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/core/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/lmkit)

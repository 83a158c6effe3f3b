# SPDX-License-Identifier: Apache-2.0
#
# lmkit_add_isa_kernels(target file…)
#   Compiles each file once per CPU instruction set of kernels/cpu_isa.hpp, with LMKIT_ISA set to its name. The files
#   instantiate templates tagged with lmkit::kernels::isa::LMKIT_ISA, so no two copies share a symbol; the baseline
#   comes first, so that any inline function left over is linked in its baseline form.
#
# lmkit_add_plugin(name SOURCES file… [KERNELS file…] [CUDA item…])
#   A plugin: one shared object name.so that exports lmkit_plugin_entry alone, with KERNELS compiled per instruction set.
#   CUDA names .cu files and libraries of its CUDA half, for which LMKIT_PLUGIN_CUDA_ARCHS is defined; where CMake has no
#   CUDA language they are left out. The runtime is linked statically, so the file loads on a machine without CUDA.
#
# lmkit_enable_cuda()
#   In a project of its own, before lmkit_add_plugin: turns CMake's CUDA language on where there is nvcc, for the GPU of this
#   machine unless CMAKE_CUDA_ARCHITECTURES says otherwise.
include_guard(GLOBAL)

set(LMKIT_SDK_DIR ${CMAKE_CURRENT_LIST_DIR})

set(LMKIT_ISA_FLAGS_baseline "")
set(LMKIT_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(LMKIT_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mbmi2 -mprefer-vector-width=512
    -Wno-maybe-uninitialized)  # g++ 12's own AVX-512 header trips it (GCC bug 105593)

set(LMKIT_ISA_FLAGS_amx ${LMKIT_ISA_FLAGS_avx512})  # its own instructions are written as assembly

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(LMKIT_ISAS baseline avx2 avx512)
else()
  set(LMKIT_ISAS baseline)
endif()

# In the source tree, or beside this file once installed.
find_file(LMKIT_CPU_ISA_SOURCE cpu_isa.cpp PATHS ${LMKIT_SDK_DIR}/../../kernels/cpu ${LMKIT_SDK_DIR} NO_DEFAULT_PATH NO_CACHE REQUIRED)

function(lmkit_add_isa_kernels target)
  if(NOT ARGN)
    return()
  endif()
  foreach(isa ${LMKIT_ISAS})
    lmkit_add_kernels_for(${isa} ${target} ${ARGN})
  endforeach()
endfunction()

function(lmkit_add_kernels_for isa target)
  add_library(${target}_${isa} OBJECT ${ARGN})
  target_compile_definitions(${target}_${isa} PRIVATE LMKIT_ISA=${isa} LMKIT_ISA_IS_${isa}=1)
  # -O3 in every build type: at -O0 inlined helpers would become shared symbols of the wrong instruction set
  target_compile_options(${target}_${isa} PRIVATE -O3 -fno-math-errno -fno-trapping-math -fopenmp-simd ${LMKIT_ISA_FLAGS_${isa}})
  target_include_directories(${target}_${isa} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
  target_compile_features(${target}_${isa} PRIVATE cxx_std_20)
  set_target_properties(${target}_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${isa}>)
endfunction()

# The architectures of this machine's GPUs, with the a of Hopper, whose kernels "native" would leave out; without a GPU sm_80,
# whose PTX newer GPUs compile when they load it.
function(lmkit_native_cuda_architectures result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE found RESULT_VARIABLE failed ERROR_QUIET)
  string(REGEX MATCHALL "[0-9]+\\.[0-9]+" found "${found}")
  string(REPLACE "." "" found "${found}")
  list(TRANSFORM found REPLACE "^90$" "90a")
  list(REMOVE_DUPLICATES found)
  if(failed OR NOT found)
    set(found 80)
  endif()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

macro(lmkit_enable_cuda)
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(LMKIT_NVCC nvcc HINTS /usr/local/cuda/bin)
  endif()
  if(LMKIT_NVCC AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${LMKIT_NVCC})
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      lmkit_native_cuda_architectures(CMAKE_CUDA_ARCHITECTURES)
    endif()
    enable_language(CUDA)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know that nvcc 12 and 13 speak C++20
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
    set(CMAKE_CUDA_STANDARD 20)
    string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr")
    find_package(CUDAToolkit REQUIRED)
  endif()
endmacro()

function(lmkit_add_plugin name)
  cmake_parse_arguments(PLUGIN "" "" "SOURCES;KERNELS;CUDA" ${ARGN})
  add_library(${name} MODULE ${PLUGIN_SOURCES})
  target_link_libraries(${name} PRIVATE lmkit::plugin_sdk)
  if(PLUGIN_KERNELS)
    target_sources(${name} PRIVATE ${LMKIT_CPU_ISA_SOURCE})  # finds the instruction set at run time
    string(JOIN " " isas ${LMKIT_ISAS})
    target_compile_definitions(${name} PRIVATE "LMKIT_PLUGIN_CPU_ISAS=\"${isas}\"")
  endif()
  if(PLUGIN_CUDA AND CMAKE_CUDA_COMPILER)
    foreach(item ${PLUGIN_CUDA})
      if(item MATCHES "\\.cu$")
        target_sources(${name} PRIVATE ${item})
      else()
        target_link_libraries(${name} PRIVATE ${item})
      endif()
    endforeach()
    string(JOIN " " archs ${CMAKE_CUDA_ARCHITECTURES})
    target_compile_definitions(${name} PRIVATE "LMKIT_PLUGIN_CUDA_ARCHS=\"${archs}\"")
    target_link_libraries(${name} PRIVATE CUDA::cudart_static)
    set_target_properties(${name} PROPERTIES CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static)
  endif()
  set_target_properties(${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name} CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  if(LMKIT_PLUGIN_DIR)
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${LMKIT_PLUGIN_DIR})
  endif()
  target_link_options(${name} PRIVATE -Wl,--version-script=${LMKIT_SDK_DIR}/exports.map -Wl,--no-undefined)
  set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${LMKIT_SDK_DIR}/exports.map)
  lmkit_add_isa_kernels(${name} ${PLUGIN_KERNELS})
endfunction()

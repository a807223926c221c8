# SPDX-License-Identifier: MIT
# Compiler settings of the whole tree: the house style's flags, all of them errors.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")

add_compile_options($<$<COMPILE_LANGUAGE:C>:-Wall>)
add_compile_options(
  "$<$<COMPILE_LANGUAGE:C>:-Wextra;-Wshadow;-Wundef;-Wvla;-Walloca;-Wformat=2;-Wstrict-prototypes;-Wmissing-prototypes;-Wold-style-definition;-Wpointer-arith;-Wwrite-strings;-Wimplicit-fallthrough;-Wcast-align;-Wnull-dereference;-Wno-missing-field-initializers;-Wno-unused-parameter;-fno-common;-fvisibility=hidden;-fno-strict-aliasing;-fstack-protector-strong;-Werror>")
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  add_compile_options("$<$<COMPILE_LANGUAGE:C>:-Wduplicated-cond;-Wlogical-op>")
else()
  add_compile_options("$<$<COMPILE_LANGUAGE:C>:-Wconditional-uninitialized>")
endif()
add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64 HSK_VERSION="${PROJECT_VERSION}")
# The stack of every process is not executable and every symbol is bound at start.
add_link_options(-Wl,-z,noexecstack -Wl,-z,relro -Wl,-z,now)

option(HSK_SANITIZE "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(HSK_FUZZ "Build the fuzz targets with libFuzzer (clang only)" OFF)
if(HSK_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
if(HSK_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# ROS 2 from PyPI wheels in a virtual environment, without anything sourced.
#
# Three things stand in the way there: the prefix that `setup.bash` would export is not set, the
# wheels record include folders of the machine that built them, and a `.venv` inside this checkout
# puts numpy's headers below the source folder, which CMake refuses to export. All are mended here.
# With a ROS 2 that was installed by apt or built from source the file changes nothing.
include_guard(GLOBAL)

# A workspace sourced over the wheels sets AMENT_PREFIX_PATH without the wheels in it.
set(pip_ros_sourced FALSE)
string(REPLACE ":" ";" pip_ros_prefixes "$ENV{AMENT_PREFIX_PATH}")
foreach(prefix IN LISTS pip_ros_prefixes)
  if(EXISTS "${prefix}/share/ament_cmake")
    set(pip_ros_sourced TRUE)
  endif()
endforeach()

if(NOT pip_ros_sourced)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c
      "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).resolve().parents[4])"
    OUTPUT_VARIABLE pip_ros_prefix
    OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET)
  if(pip_ros_prefix)
    list(APPEND pip_ros_prefixes "${pip_ros_prefix}")
    list(JOIN pip_ros_prefixes ":" pip_ros_prefixes)
    set(ENV{AMENT_PREFIX_PATH} "${pip_ros_prefixes}")
    list(APPEND CMAKE_PREFIX_PATH "${pip_ros_prefix}")
  else()
    message(FATAL_ERROR
      "No ROS 2 found: neither is one sourced (AMENT_PREFIX_PATH names none) nor are its PyPI "
      "wheels installed for ${Python3_EXECUTABLE}. Source a ROS 2 installation, or run 'make "
      "setup' in the masa_ros checkout and activate its .venv.")
  endif()
endif()

# Drop include folders that do not exist here; consumers add their own Python and numpy headers.
function(pip_ros_repair_imported_targets)
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      if(folder MATCHES "^\\$<" OR NOT IS_ABSOLUTE "${folder}" OR EXISTS "${folder}")
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    if(NOT "${kept}" STREQUAL "${folders}")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
    endif()
  endforeach()
endfunction()

# What our own generated Python extension includes matters while it is built, not to its users.
function(pip_ros_keep_includes_private)
  set(target "${PROJECT_NAME}__rosidl_generator_py")
  if(TARGET ${target})
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(folders)
      set_target_properties(${target} PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "$<BUILD_INTERFACE:${folders}>")
    endif()
  endif()
endfunction()

cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL pip_ros_keep_includes_private)
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL pip_ros_repair_imported_targets)

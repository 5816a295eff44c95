"""masa_ros: segment and track anything, for ROS 2."""

from pkgutil import extend_path

# ROS generates masa_ros.msg into an install folder; this lets a checkout see it there.
__path__ = extend_path(__path__, __name__)

"""
A detector: publishes detections of any type for the images that it hears; run as a script.

    python publisher.py TOPIC TYPE [EVERY]

It answers every EVERY-th image on /tracker/input/image with one object whose box covers columns
10 to 30 and rows 8 to 40, of class car and score 0.9.
"""

from __future__ import annotations

from contextlib import suppress
import sys
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image
import upstream_messages as messages


def main(topic: str, kind: str, every: int = 1) -> None:
    rclpy.init(args=[])
    node = rclpy.create_node('detector')
    publisher = node.create_publisher(messages.message_class(kind), topic, 10)
    count = 0

    def answer(image: Any) -> None:
        nonlocal count
        count += 1
        if (count - 1) % every == 0:
            for message in messages.make(kind, image.header, [messages.Thing()]):
                publisher.publish(message)

    node.create_subscription(Image, '/tracker/input/image', answer, 10)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)

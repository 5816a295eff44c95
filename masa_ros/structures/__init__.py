"""Plain numpy structures that every other part speaks: frames, instances, boxes and masks."""

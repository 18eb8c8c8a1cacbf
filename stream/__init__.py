"""Event schemas, stream workers, the generator worker, replay and the simulator."""

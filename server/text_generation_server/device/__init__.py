"""What runs on a device, and how numbers get there: streams, copies, memory, recordings. Knows no models."""

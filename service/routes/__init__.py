"""The paths of the service, one small module each: parse, call, encode."""

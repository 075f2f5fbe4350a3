"""The shared language of every stage: types, boxes, records, configs, manifests and errors. Imports no torch."""

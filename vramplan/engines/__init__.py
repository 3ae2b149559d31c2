"""Engines: what runs a model decides its memory. Folders of the same rooms behind one `door`."""

"""Archives as they are downloaded, read as fine fields and coarse forcing: HILDA+ and other class rasters, LUH2.

Nothing here is needed to train, evaluate or predict from files that are prepared.
"""

"""Helpers of the detector, one purpose per module; importing any of them changes nothing."""

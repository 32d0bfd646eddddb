"""Emitting metrics and logs. (Showing them is somebody else's part.)"""

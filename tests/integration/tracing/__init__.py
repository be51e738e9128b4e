"""What is seen of sagas: projections, exports, pictures."""

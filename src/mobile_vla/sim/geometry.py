"""Plane geometry of scenes: distances to circles and boxes, and lines of sight. World frame, metres."""

import math

import numpy as np
from numpy.typing import NDArray

from mobile_vla.sim.scene import Obstacle, PlacedObject, Pose, Scene

Points = NDArray[np.float64]


def wrap_angle(angle_rad: float) -> float:
    """To (-pi, pi]."""
    return math.atan2(math.sin(angle_rad), math.cos(angle_rad))


def to_base(pose: Pose, x: float, y: float) -> tuple[float, float]:
    """A world point seen from ``pose``: (forward, left)."""
    dx, dy = x - pose.x, y - pose.y
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    return cos * dx + sin * dy, -sin * dx + cos * dy


def object_distance(item: PlacedObject, x: float, y: float) -> float:
    """From a point to the nearest edge of the object's footprint; negative inside."""
    return math.hypot(item.pose.x - x, item.pose.y - y) - item.radius_m


def object_bearing(item: PlacedObject, pose: Pose) -> float:
    """Bearing of the object's centre from ``pose``, left positive."""
    return wrap_angle(math.atan2(item.pose.y - pose.y, item.pose.x - pose.x) - pose.yaw)


def obstacle_distance(obstacle: Obstacle, points: Points) -> NDArray[np.float64]:
    """From points (..., 2) to the obstacle's edge; 0 inside. Shape (...,)."""
    cos, sin = math.cos(obstacle.pose.yaw), math.sin(obstacle.pose.yaw)
    dx, dy = points[..., 0] - obstacle.pose.x, points[..., 1] - obstacle.pose.y
    outside_x = np.abs(cos * dx + sin * dy) - obstacle.half_x
    outside_y = np.abs(-sin * dx + cos * dy) - obstacle.half_y
    distance: NDArray[np.float64] = np.hypot(np.maximum(outside_x, 0.0), np.maximum(outside_y, 0.0))
    return distance


def clearance(scene: Scene, points: Points, skip: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """Distance of points (..., 2) to the nearest wall, obstacle or object not in ``skip``. Shape (...,)."""
    nearest = np.minimum(scene.half_x - np.abs(points[..., 0]), scene.half_y - np.abs(points[..., 1]))
    for obstacle in scene.obstacles:
        nearest = np.minimum(nearest, obstacle_distance(obstacle, points))
    for index, item in enumerate(scene.objects):
        if index not in skip:
            away = np.hypot(points[..., 0] - item.pose.x, points[..., 1] - item.pose.y) - item.radius_m
            nearest = np.minimum(nearest, away)
    return nearest


def sight_fraction(scene: Scene, index: int, x: float, y: float) -> float:
    """Share of the object's width that no obstacle or other object stands before, seen from (x, y) in plan view."""
    item = scene.objects[index]
    distance = math.hypot(item.pose.x - x, item.pose.y - y)
    across_x, across_y = -(item.pose.y - y) / distance, (item.pose.x - x) / distance
    offsets = np.linspace(-0.8, 0.8, 5) * item.radius_m
    ends = np.stack([item.pose.x + across_x * offsets, item.pose.y + across_y * offsets], axis=-1)
    along = np.linspace(0.02, max(0.05, 1.0 - item.radius_m / distance), 60)[:, None, None]
    line = np.array([x, y]) + along * (ends - np.array([x, y]))
    free = np.ones(len(offsets), dtype=bool)
    for obstacle in scene.obstacles:
        free &= (obstacle_distance(obstacle, line) > 0.01).all(axis=0)
    for other, blocker in enumerate(scene.objects):
        if other != index:
            away = np.hypot(line[..., 0] - blocker.pose.x, line[..., 1] - blocker.pose.y)
            free &= (away > blocker.radius_m).all(axis=0)
    return float(free.mean())

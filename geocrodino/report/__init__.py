"""Evaluations for people and programs: tables, JSON and pictures."""

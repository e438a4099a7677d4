"""Millrace's automation server: runs Python scripts in a sandbox and streams what they print."""

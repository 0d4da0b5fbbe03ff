"""Sphinx configuration."""

project = "firstlight"
author = "the firstlight developers"
copyright = "2026, the firstlight developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "firstlight"
exclude_patterns = ["_build"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["torch"]
nitpicky = False
suppress_warnings = ["autodoc.mocked_object"]

"""The what-if page as files that any web server can hold, with vramplan itself in the browser."""

"""Visual tokens of LLaVA-NeXT (CLIP L/14 at 336 pixels) by width x height of the picture; the last four fill a grid."""

PUBLISHED = {
    "336x336": 1176,
    "640x480": 2340,
    "480x640": 2352,
    "1024x768": 2340,
    "672x672": 2928,
    "1000x300": 2182,
    "300x1000": 2232,
    "1920x1080": 1948,
    "1344x336": 1890,
    "336x672": 1776,
    "672x336": 1752,
    "1008x336": 2328,
    "336x1008": 2376,
}

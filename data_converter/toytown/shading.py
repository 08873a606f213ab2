"""What surfaces look like: procedural textures, reflectance in the near infrared, sun, sky and tone curve."""
import numpy as np

from .meshes import Material as M

# near-infrared reflectance = base·(1 − mix) + mix·luminance·1.2 (the LiDAR and its ambient channel see this)
_INFRARED = {
    M.ROAD: (.16, .6), M.PAVEMENT: (.30, .5), M.KERB: (.35, .5), M.GRASS: (.50, .2), M.CAR_PARK: (.16, .6),
    M.FACADE: (.35, .6), M.ROOF: (.20, .5), M.BARK: (.25, .3), M.FOLIAGE: (.55, .15), M.METAL: (.35, .5),
    M.PAINT: (.30, .75), M.GLASS: (.05, .0), M.RUBBER: (.06, .0), M.HEADLIGHT: (.9, .0),
    M.TAIL_LIGHT: (1.5, .0), M.PLATE: (2.5, .0), M.CLOTH: (.45, .3), M.SKIN: (.45, .2), M.LAMP: (.4, .0)}
_GLOSS = {M.PAINT: .05, M.GLASS: .09, M.METAL: .02, M.HEADLIGHT: .06}
_BASE, _MIX = (np.array([_INFRARED[m][i] for m in M], np.float32) for i in (0, 1))
_SHINE = np.array([_GLOSS.get(m, 0.0) for m in M], np.float32)


def noise(*coordinates):
    """White noise in [0, 1), a hash of integer coordinates."""
    h = np.zeros(np.broadcast_shapes(*(np.shape(c) for c in coordinates)), np.uint32)
    for c, k in zip(coordinates, (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)):
        h = (h ^ np.asarray(c).astype(np.int64).astype(np.uint32)) * np.uint32(k)
        h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(13)
    return (h >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def waves(x, y, scale):
    """Smooth noise around 1 with an amplitude of about 0.15."""
    x, y = x / scale, y / scale
    return 1 + .07 * (np.sin(x + 1.7 * np.sin(.8 * y)) + np.sin(1.3 * y + 2.1 * np.sin(.6 * x)))


def _frac(v):
    return v - np.floor(v)


def _lane_paint(x, y, streets):
    """Mask of the painted parts of the road at (x, y): lane lines, parking bays, stop lines, zebras."""
    h = streets.half_width

    def along(s, d, crossings, sign):
        nearest = crossings[np.abs(s[:, None] - crossings).argmin(1)]
        away, outward = np.abs(s - nearest), np.sign(s - nearest)
        free = away > h + 5.5
        lines = ((np.abs(d) < .08) & (_frac(s / 6) < .5) & free
                 | (np.abs(np.abs(d) - streets.lane) < .06) & free & (_frac(s / 2) < .6)
                 | (np.abs(away - h - 4.6) < .2) & (-d * outward * sign > 0) & (np.abs(d) < streets.lane)
                 | (np.abs(away - h - 2.3) < 1.3) & (_frac(d + .25) < .5) & (np.abs(d) < h - .2))
        return lines & (np.abs(d) < h) & (away > h)

    xs, ys = streets.xs.astype(np.float32), streets.ys.astype(np.float32)
    nearest_y = ys[np.abs(y[:, None] - ys).argmin(1)]
    nearest_x = xs[np.abs(x[:, None] - xs).argmin(1)]
    return along(x, y - nearest_y, xs, streets.side) | along(y, x - nearest_x, ys, -streets.side)


def surface(mesh, triangle, position, normal, streets, dusk=0.0):
    """Optical properties at points of a mesh.

    Args:
        mesh: :class:`Mesh`.
        triangle: (N,) face indices.
        position, normal: (N, 3) float32 in the town frame.
        streets: :class:`Streets`, for the paint on the road.
        dusk: 1 = lamps on.

    Returns:
        tuple: albedo (N, 3), near-infrared reflectance (N,), gloss (N,), emission (N, 3), all float32.
    """
    material, color = mesh.material[triangle], mesh.color[triangle].copy()
    shine = _SHINE[material]
    glow = np.zeros_like(color)
    x, y, z = position.T
    fine = noise(*np.floor(position.T * 24).astype(np.int64))

    def pick(*kinds):
        return np.flatnonzero(np.isin(material, [int(k) for k in kinds]))

    i = pick(M.ROAD)
    color[i] *= (waves(x[i], y[i], 2.3) * (.8 + .4 * fine[i])
                 * (.85 + .3 * noise(np.floor(x[i] / 7), np.floor(y[i] / 4))))[:, None]
    line = i[_lane_paint(x[i], y[i], streets)]
    color[line] = (.62 + .12 * fine[line])[:, None]

    i = pick(M.CAR_PARK)
    color[i] *= (waves(x[i], y[i], 2.9) * (.8 + .4 * fine[i]))[:, None]

    i = pick(M.PAVEMENT)
    top = normal[i, 2] > .5
    slab = noise(np.floor(x[i] / .6), np.floor(y[i] / .6), 3)
    joint = (_frac(x[i] / .6) < .06) | (_frac(y[i] / .6) < .06)
    color[i] *= np.where(top, (.85 + .25 * slab) * np.where(joint, .7, 1), 1.35)[:, None]

    i = pick(M.GRASS, M.FOLIAGE)
    color[i] *= ((.55 + .9 * fine[i]) * waves(x[i] + z[i], y[i] - z[i], .9))[:, None]

    i = pick(M.FACADE)
    _facades(i, color, shine, glow, position, normal, dusk)

    i = pick(M.ROOF)
    color[i] *= (.8 + .4 * (_frac(z[i] / .35) < .8) * noise(np.floor(z[i] / .35), np.floor((x[i] + y[i]) / .4)))[:, None]

    i = pick(M.BARK, M.METAL, M.CLOTH)
    color[i] *= (.85 + .3 * fine[i])[:, None]

    if dusk:
        for kind, light in ((M.HEADLIGHT, (2.4, 2.3, 2.0)), (M.TAIL_LIGHT, (1.1, .04, .03)),
                            (M.LAMP, (2.2, 1.7, 1.0))):
            glow[pick(kind)] = np.float32(light) * np.float32(dusk)
    luminance = color @ np.array([.3, .5, .2], np.float32)
    infrared = _BASE[material] * (1 - _MIX[material]) + _MIX[material] * luminance * np.float32(1.2)
    return color, infrared, shine, glow


def _facades(i, color, shine, glow, position, normal, dusk):
    """Bricks, windows and doors on walls, in place."""
    x, y, z = position[i].T
    nx, ny, nz = normal[i].T
    u = np.where(np.abs(nx) > np.abs(ny), y, x)
    key = np.floor(color[i, 0] * 997).astype(np.int64)
    period = 2.3 + 1.3 * noise(key, 1)
    column, floor = np.floor(u / period), np.floor((z - .3) / 3.0)
    fu, fv = _frac(u / period), _frac((z - .3) / 3.0)
    wide = .18 + .14 * noise(key, 2)
    wall = np.abs(nz) < .5
    window = wall & (fu > wide) & (fu < 1 - wide) & (fv > .3) & (fv < .8)
    frame = wall & ~window & (fu > wide - .04) & (fu < 1.04 - wide) & (fv > .26) & (fv < .83)
    door = wall & (floor < 1) & (noise(column, key, 5) < .25) & (fu > .3) & (fu < .7) & (fv < .75)
    brick = noise(np.floor(u / .45 + .5 * (np.floor(z / .15) % 2)), np.floor(z / .15), 11)
    color[i] *= (.85 + .25 * brick)[:, None]
    color[i[frame]] = .6
    glass = i[window & ~door]
    color[glass] = (.05, .06, .075)
    shine[glass] = .10
    lit = glass[noise(column, floor, key)[window & ~door] < .35]
    glow[lit] = np.float32((1.3, .9, .45)) * np.float32(dusk)
    shade = noise(column[door], key[door])[:, None]
    color[i[door]] = np.float32((.25, .08, .06)) * shade + np.float32((.05, .12, .2)) * (1 - shade)


def sky(direction, weather):
    """(N, 3) float32 radiance of the sky in the directions (N, 3)."""
    up = np.clip(direction[:, 2], 0, 1)
    blend = (1 - up[:, None]) ** 3
    color = weather.zenith.astype(np.float32) * (1 - blend) + weather.horizon.astype(np.float32) * blend
    p = direction[:, :2] / (up[:, None] + .12) * 1.3 + weather.phase[:2].astype(np.float32)
    puff = np.zeros(len(up), np.float32)
    for k, (fx, fy) in enumerate(((1.0, .9), (2.3, 2.1), (4.7, 5.3), (9.1, 10.3))):
        turn = np.float32(weather.phase[2] + k)
        puff += np.sin(p[:, 0] * np.float32(fx) + np.sin(p[:, 1] * np.float32(fy) + turn) * np.float32(1.4)
                       + turn) * np.float32(.5 ** k)
    cloud = np.clip(puff * .45 + np.float32(weather.clouds * 1.6 - .8), 0, 1)[:, None]
    bright = (weather.horizon * 1.05 + weather.sun * .12).astype(np.float32)
    color = color * (1 - cloud * .85) + bright * cloud * .85
    toward = np.clip(direction @ weather.sun_dir.astype(np.float32), 0, 1)[:, None]
    halo = toward ** 24 * .25 + (toward > .9994) * 6
    return (color + weather.sun.astype(np.float32) * halo * (1 - cloud * .8)).astype(np.float32)


def radiance(direction, normal, albedo, shine, glow, sunlit, open_sky, weather):
    """(N, 3) float32 radiance of surface points seen along ``direction``.

    Args:
        direction, normal: (N, 3) unit vectors, from the camera and out of the surface.
        albedo, shine, glow: as returned by :func:`surface`.
        sunlit: (N,) share of the sun that is not shadowed.
        open_sky: (N,) share of the sky that is not occluded nearby.
        weather: :class:`Weather`.
    """
    sun_dir, sun = weather.sun_dir.astype(np.float32), weather.sun.astype(np.float32)
    facing = np.clip(normal @ sun_dir, 0, 1) * sunlit
    hemisphere = (.62 + .38 * normal[:, 2]) * open_sky
    light = facing[:, None] * sun + hemisphere[:, None] * weather.ambient.astype(np.float32)
    out = albedo * light + glow
    i = np.flatnonzero(shine > 0)
    if len(i):
        cos = np.clip(-(direction[i] * normal[i]).sum(1), 0, 1)
        mirrored = direction[i] + 2 * cos[:, None] * normal[i]
        fresnel = (shine[i] + (1 - shine[i]) * .75 * (1 - cos) ** 5)[:, None]
        street = weather.ambient.astype(np.float32) * np.float32(.22)
        up = np.clip(mirrored[:, 2:] * 4 + .3, 0, 1)
        seen = sky(mirrored, weather) * up + street * (1 - up)
        spark = np.clip(mirrored @ sun_dir, 0, 1)[:, None] ** 60 * sunlit[i, None] * sun * 1.5
        out[i] = out[i] * (1 - fresnel) + fresnel * (seen + spark)
    return out


def develop(light, exposure):
    """Maps radiance (N, 3) to display values in [0, 1]: exposure, shoulder and gamma."""
    return (1 - np.exp(-light * np.float32(exposure))) ** np.float32(1 / 2.2)

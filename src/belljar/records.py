"""Data classes that cost next to nothing to define.

`dataclasses.dataclass` writes the source text of every method of every class and compiles it, half a millisecond a class;
some fifty classes lie on the way of `belljar run hello-long`, whose whole process has little more than that. The decorator
here gives the same classes with methods that are shared. It knows what belljar uses (`frozen`, `slots`, defaults, default
factories, fields set by `__post_init__`, inheritance), and `dataclasses.fields`, `asdict` and `replace` work on the results.
Type checkers see the standard library's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
else:
    _MISSING = object()

    class _Field:
        """What `field` returns: a default, or a factory of defaults."""

        __slots__ = ("default", "factory", "init")

        def __init__(self, default, factory, init=True):
            self.default = default
            self.factory = factory
            self.init = init

    def field(*, default=_MISSING, default_factory=_MISSING, init=True):
        """As `dataclasses.field`, for defaults, and for fields that `__post_init__` sets."""
        return _Field(default, default_factory, init)

    def dataclass(cls=None, /, *, frozen=False, slots=False):
        """As `dataclasses.dataclass`, for `frozen` and `slots`."""
        if cls is None:
            return lambda cls: _record(cls, frozen, slots)
        return _record(cls, frozen, slots)

    def _record(cls, frozen, slots):
        own = {}
        annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  (`inspect` costs 8 ms)
        for name, annotation in annotations.items():
            if not str(annotation).startswith(("ClassVar", "typing.ClassVar")):
                default = cls.__dict__.get(name, _MISSING)
                own[name] = default if isinstance(default, _Field) else _Field(default, _MISSING)
        fields = {}
        for base in reversed(cls.__mro__[1:]):
            fields.update(getattr(base, "__record_fields__", {}))
        inherited = tuple(fields)
        fields.update(own)
        _check(cls, fields)
        cls = _with_slots(cls, own, inherited) if slots else _with_defaults(cls, own)
        names = tuple(fields)
        cls.__record_fields__ = fields
        cls.__match_args__ = tuple(name for name, spec in fields.items() if spec.init)
        setters = tuple(_setter(cls, name, slots) for name in names)
        for method in (_init(cls, fields, setters), _repr(names), _eq(names), *_state(names, setters)):
            if method.__name__ not in cls.__dict__:
                method.__qualname__ = f"{cls.__qualname__}.{method.__name__}"
                setattr(cls, method.__name__, method)
        if frozen:
            cls.__hash__ = _hash(names)
            cls.__setattr__ = _refuse("assign to")
            cls.__delattr__ = _refuse("delete")
        elif "__hash__" not in cls.__dict__:
            cls.__hash__ = None
        cls.__dataclass_fields__ = _FromStandard("__dataclass_fields__", frozen)
        cls.__dataclass_params__ = _FromStandard("__dataclass_params__", frozen)
        return cls

    def _check(cls, fields):
        optional = False
        for name, spec in fields.items():
            if not spec.init:
                continue
            if spec.default is not _MISSING or spec.factory is not _MISSING:
                optional = True
                if isinstance(spec.default, (list, dict, set)):
                    raise ValueError(f"mutable default {type(spec.default)} for field {name} is not allowed")
            elif optional:
                raise TypeError(f"non-default argument {name!r} of {cls.__name__} follows default argument")

    def _with_slots(cls, own, inherited):
        namespace = {key: value for key, value in cls.__dict__.items() if key not in ("__dict__", "__weakref__", *own)}
        namespace["__slots__"] = tuple(name for name in own if name not in inherited)
        made = type(cls)(cls.__name__, cls.__bases__, namespace)
        made.__qualname__ = cls.__qualname__
        return made

    def _with_defaults(cls, own):
        for name, spec in own.items():
            if spec.default is not _MISSING:
                setattr(cls, name, spec.default)
            elif name in cls.__dict__:
                delattr(cls, name)
        return cls

    def _setter(cls, name, slots):
        if slots:
            return getattr(cls, name).__set__
        return lambda self, value: object.__setattr__(self, name, value)

    def _init(cls, fields, setters):
        specs = tuple(
            (name, setter, spec) for (name, spec), setter in zip(fields.items(), setters, strict=True) if spec.init
        )
        by_order = tuple(setter for _, setter, _ in specs)
        finish = getattr(cls, "__post_init__", None)
        total = len(specs)
        title = f"{cls.__name__}.__init__()"

        def __init__(self, *values, **named):
            given = len(values)
            if given > total:
                raise TypeError(f"{title} takes {total + 1} positional arguments but {given + 1} were given")
            for setter, value in zip(by_order, values):  # noqa: B905  (fewer values than fields is what it is for)
                setter(self, value)
            for name, setter, spec in specs[given:]:
                if name in named:
                    setter(self, named.pop(name))
                elif spec.factory is not _MISSING:
                    setter(self, spec.factory())
                elif spec.default is not _MISSING:
                    setter(self, spec.default)
                else:
                    raise TypeError(f"{title} missing required argument: {name!r}")
            for name in named:
                what = "multiple values for" if name in fields else "an unexpected keyword"
                raise TypeError(f"{title} got {what} argument {name!r}")
            if finish is not None:
                finish(self)

        return __init__

    def _repr(names):
        def __repr__(self):
            inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            return f"{type(self).__qualname__}({inside})"

        return __repr__

    def _eq(names):
        def __eq__(self, other):
            if other.__class__ is not self.__class__:
                return NotImplemented
            return all(getattr(self, name) == getattr(other, name) for name in names)

        return __eq__

    def _hash(names):
        def __hash__(self):
            return hash(tuple(getattr(self, name) for name in names))

        return __hash__

    def _state(names, setters):
        """Pickling and copying, which frozen classes with slots must help with."""

        def __getstate__(self):
            return [getattr(self, name) for name in names]

        def __setstate__(self, state):
            for setter, value in zip(setters, state, strict=True):
                setter(self, value)

        return __getstate__, __setstate__

    def _refuse(what):
        def refuse(self, name, *value):
            """Raise the error of frozen records."""
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot {what} field {name!r}")

        return refuse

    class _FromStandard:
        """A class attribute by which the functions of `dataclasses` know their own: made when they first ask for it."""

        def __init__(self, attribute, frozen):
            self._attribute = attribute
            self._frozen = frozen

        def __get__(self, instance, owner):
            import dataclasses

            namespace = {
                "__annotations__": dict.fromkeys(owner.__record_fields__, object),
                "__module__": owner.__module__,
            }
            for name, spec in owner.__record_fields__.items():
                if not spec.init:
                    namespace[name] = dataclasses.field(init=False)
                elif spec.factory is not _MISSING:
                    namespace[name] = dataclasses.field(default_factory=spec.factory)
                elif spec.default is not _MISSING:
                    namespace[name] = spec.default
            standard = dataclasses.dataclass(frozen=self._frozen)(type(owner.__name__, (), namespace))
            value = getattr(standard, self._attribute)
            setattr(owner, self._attribute, value)
            return value

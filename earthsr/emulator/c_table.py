"""The functions of ``libearthsr_bmi``, in one table, and what follows from it: C declarations and a Fortran module.

The table of the Basic Model Interface is that of ``bmi-c`` 2.0: the same names in the same order. How a call is
answered stands in :mod:`earthsr.emulator.c_host`, how the library is built in :mod:`earthsr.emulator.c_library`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: An argument's kind, and how C declares it.
C_DECLARATIONS: Final = {
    "text": "const char *",
    "double": "double ",
    "int": "int ",
    "count": "int ",  # items of the arrays beside it
    "type": "const char *",  # of the items of the array beside it, in C's words
    "values_in": "const void *",
    "values_out": "void *",
    "indices": "int *",
    "pointer_out": "void **",
    "int_out": "int *",
    "double_out": "double *",
    "text_out": "char *",
    "names_out": "char **",
    "ints_out": "int *",
    "doubles_out": "double *",
}


@dataclass(frozen=True)
class Argument:
    """An argument, after the model itself."""

    kind: str
    name: str


@dataclass(frozen=True)
class Function:
    """A function of C, whose method in Python has the same name."""

    name: str
    arguments: tuple[Argument, ...]
    c_types: tuple[tuple[str, str], ...] = ()
    """Kinds that C declares in another way here."""

    def declared(self, name: str, model: str = "Bmi *") -> str:
        """Declare it in C under a name; no semicolon."""
        types = {**C_DECLARATIONS, **dict(self.c_types)}
        arguments = [f"{model}self", *(f"{types[argument.kind]}{argument.name}" for argument in self.arguments)]
        return f"int {name}({', '.join(arguments)})"


def _functions(table: str, **c_types: str) -> tuple[Function, ...]:
    rows = (line.split(":") for line in table.strip().splitlines())
    return tuple(
        Function(
            name.strip(),
            tuple(Argument(*text.split()) for text in rest.split(",") if text.strip()),
            (*c_types.items(),),
        )
        for name, rest in rows
    )


#: The Basic Model Interface. Order counts: it is that of the members of ``struct Bmi``.
BMI: Final = _functions(
    """
    initialize: text config_file
    update:
    update_until: double then
    finalize:
    get_component_name: text_out name
    get_input_item_count: int_out count
    get_output_item_count: int_out count
    get_input_var_names: names_out names
    get_output_var_names: names_out names
    get_var_grid: text name, int_out grid
    get_var_type: text name, text_out type
    get_var_units: text name, text_out units
    get_var_itemsize: text name, int_out size
    get_var_nbytes: text name, int_out nbytes
    get_var_location: text name, text_out location
    get_current_time: double_out time
    get_start_time: double_out time
    get_end_time: double_out time
    get_time_units: text_out units
    get_time_step: double_out time_step
    get_value: text name, values_out dest
    get_value_ptr: text name, pointer_out dest_ptr
    get_value_at_indices: text name, values_out dest, indices inds, count count
    set_value: text name, values_in src
    set_value_at_indices: text name, indices inds, count count, values_in src
    get_grid_rank: int grid, int_out rank
    get_grid_size: int grid, int_out size
    get_grid_type: int grid, text_out type
    get_grid_shape: int grid, ints_out shape
    get_grid_spacing: int grid, doubles_out spacing
    get_grid_origin: int grid, doubles_out origin
    get_grid_x: int grid, doubles_out x
    get_grid_y: int grid, doubles_out y
    get_grid_z: int grid, doubles_out z
    get_grid_node_count: int grid, int_out count
    get_grid_edge_count: int grid, int_out count
    get_grid_face_count: int grid, int_out count
    get_grid_edge_nodes: int grid, ints_out edge_nodes
    get_grid_face_edges: int grid, ints_out face_edges
    get_grid_face_nodes: int grid, ints_out face_nodes
    get_grid_nodes_per_face: int grid, ints_out nodes_per_face
    """,
    values_in="void *",  # bmi-c knows no const there
)

#: What this library adds: values whose type and number are checked, and the time that steps take.
ADDED: Final = _functions(
    """
    initialize_share: text config_file, int rank, int ranks
    get_value_checked: text name, type type, values_out dest, count count
    get_value_ptr_checked: text name, text type, pointer_out dest_ptr, int_out count
    get_value_at_indices_checked: text name, type type, values_out dest, indices inds, count count
    set_value_checked: text name, type type, values_in src, count count
    set_value_at_indices_checked: text name, type type, indices inds, count count, values_in src
    set_deadline: double seconds
    get_step_seconds: double_out last, double_out longest, int_out late
    """
)

#: Name in C of a function of the table.
PREFIX: Final = "earthsr_bmi_"


def struct() -> str:
    """``struct Bmi`` of ``bmi-c``."""
    members = "\n".join(f"  {f.declared(f'(*{f.name})', 'struct Bmi *')};" for f in BMI)
    return f"typedef struct Bmi {{\n  void *data;\n{members}\n}} Bmi;\n"


def declarations() -> str:
    """Declare all functions of the table."""
    return "".join(f"{function.declared(PREFIX + function.name)};\n" for function in (*BMI, *ADDED))


def python_declarations(storage: str = "") -> str:
    """Declare what Python answers: 1 where it was done, 2 where it was not, 0 where Python never got so far."""
    return "".join(f"{storage}{f.declared('python_' + f.name)};\n" for f in (*BMI, *ADDED))


def definitions() -> str:
    """Define all functions of the table, each by a call of Python; and what fills ``struct Bmi``."""
    lines = []
    for function in (*BMI, *ADDED):
        arguments = ", ".join(["self", *(argument.name for argument in function.arguments)])
        lines += [
            f"EXPORTED {function.declared(PREFIX + function.name)} {{",
            "  fenv_t kept;",
            "  if (!begun(&kept, self != NULL)) return BMI_FAILURE;",
            f"  return ended(&kept, python_{function.name}({arguments}));",
            "}",
        ]
    members = [f"  self->{function.name} = {PREFIX}{function.name};" for function in BMI]
    fills = [
        "EXPORTED Bmi *register_bmi_earthsr(Bmi *self) {",
        "  if (self == NULL) return NULL;",
        "  self->data = NULL;",
    ]
    return "\n".join([*lines, *fills, *members, "  return self;", "}", ""])


# Fortran: a type with bound procedures, in the shape of bmi-fortran.

#: A kind of argument in an interface to C, and as bmi-fortran has it. Types of items stand for {type}.
_INTERFACE: Final = {
    "text": "character(kind=c_char), intent(in) :: {name}(*)",
    "type": "character(kind=c_char), intent(in) :: {name}(*)",
    "double": "real(c_double), value :: {name}",
    "int": "integer(c_int), value :: {name}",
    "count": "integer(c_int), value :: {name}",
    "values_in": "type(*), intent(in) :: {name}(*)",
    "values_out": "type(*), intent(inout) :: {name}(*)",
    "indices": "integer(c_int), intent(in) :: {name}(*)",
    "pointer_out": "type(c_ptr), intent(out) :: {name}",
    "int_out": "integer(c_int), intent(inout) :: {name}",
    "double_out": "real(c_double), intent(inout) :: {name}",
    "text_out": "character(kind=c_char), intent(inout) :: {name}(*)",
    "names_out": "type(c_ptr), intent(in) :: {name}(*)",
    "ints_out": "integer(c_int), intent(inout) :: {name}(*)",
    "doubles_out": "real(c_double), intent(inout) :: {name}(*)",
}
_DUMMY: Final = {
    "text": "character(len=*), intent(in) :: {name}",
    "double": "double precision, intent(in) :: {name}",
    "int": "integer, intent(in) :: {name}",
    "int_out": "integer, intent(inout) :: {name}",
    "double_out": "double precision, intent(inout) :: {name}",
    "text_out": "character(len=*), intent(out) :: {name}",
    "ints_out": "integer, intent(inout) :: {name}(:)",
    "doubles_out": "double precision, intent(inout) :: {name}(:)",
    "indices": "integer, intent(in) :: {name}(:)",
    "values_in": "{type}, intent(in) :: {name}(:)",
    "values_out": "{type}, intent(inout) :: {name}(:)",
    "pointer_out": "{type}, pointer, intent(inout) :: {name}(:)",
}
_PASSED: Final = {
    "text": "trim({name})//c_null_char",
    "type": '"{c_type}"//c_null_char',
    "count": "size({items})",
    "text_out": "buffer",
    "pointer_out": "place",
}
#: Ends of the names of functions of values, Fortran's type, C's. Bytes are an addition to bmi-fortran.
_ITEMS: Final = (
    ("int", "integer", "int"),
    ("float", "real", "float"),
    ("double", "double precision", "double"),
    ("int8", "integer(c_int8_t)", "unsigned char"),
)
#: Written by hand, in module.f90.
_BY_HAND: Final = (
    "initialize",
    "initialize_share",
    "finalize",
    "get_component_name",
    "get_input_var_names",
    "get_output_var_names",
)
_VALUES: Final = ("get_value", "get_value_ptr", "get_value_at_indices", "set_value", "set_value_at_indices")


def fortran_interfaces() -> str:
    """Interfaces of ``iso_c_binding`` to all functions of the table."""
    lines = []
    for function in (*BMI, *ADDED):
        names = ", ".join(["self", *(argument.name for argument in function.arguments)])
        lines += [
            f"    function c_{function.name}({names}) &",
            f'        bind(c, name="{PREFIX}{function.name}") result(bmi_status)',
            "      import",
            "      type(c_ptr), value :: self",
            *(f"      {_INTERFACE[a.kind].format(name=a.name)}" for a in function.arguments),
            "      integer(c_int) :: bmi_status",
            f"    end function c_{function.name}",
        ]
    return "\n".join(lines) + "\n"


def _fortran_functions() -> list[tuple[str, Function, str, str]]:
    """Name, function, and of the items of values Fortran's type and C's."""
    checked = {function.name.removesuffix("_checked"): function for function in ADDED}
    functions: list[tuple[str, Function, str, str]] = []
    for function in (*BMI, *ADDED):
        if function.name in _VALUES:
            functions += [(f"{function.name}_{end}", checked[function.name], fortran, c) for end, fortran, c in _ITEMS]
        elif function.name not in _BY_HAND and not function.name.endswith("_checked"):
            functions.append((function.name, function, "", ""))
    return functions


def fortran_bindings() -> str:
    """Bind the procedures to the type."""
    lines = [f"    procedure :: {name}" for name in _BY_HAND]
    lines += [f"    procedure :: {name}" for name, *_ in _fortran_functions()]
    for name in _VALUES:
        lines.append(f"    generic :: {name} => &\n        {', '.join(f'{name}_{end}' for end, *_ in _ITEMS)}")
    return "\n".join(lines) + "\n"


def fortran_procedures() -> str:
    """Procedures of the type that pass a call on."""
    lines = []
    for name, function, fortran_type, c_type in _fortran_functions():
        shown = [a for a in function.arguments if a.kind in _DUMMY and not (c_type and a.name in ("type", "count"))]
        kinds = {argument.kind for argument in function.arguments}
        # Where indices and values both come, their number is that of the indices; Fortran checks the other.
        items = next((a.name for kind in ("indices", "values_in", "values_out") for a in shown if a.kind == kind), "")
        passed = []
        for a in function.arguments:
            rule = _PASSED["type"] if c_type and a.name == "type" else _PASSED.get(a.kind, "{name}")
            passed.append(
                rule.format(name=a.name, c_type=c_type, items=items)
                if a.name != "count" or not c_type
                else ("count" if "pointer_out" in kinds else f"size({items})")
            )
        lines += [
            f"  function {name}({', '.join(['self', *(a.name for a in shown)])}) result(bmi_status)",
            "    class(bmi_earthsr), intent(in) :: self",
            *(f"    {_DUMMY[a.kind].format(name=a.name, type=fortran_type)}" for a in shown),
            "    integer :: bmi_status",
        ]
        call = f"c_{function.name}(self%model, &\n        {', '.join(passed)})".replace(", &\n        )", ")")
        if "text_out" in kinds:
            text = next(a.name for a in shown if a.kind == "text_out")
            lines += [
                "    character(kind=c_char) :: buffer(BMI_MAX_VAR_NAME)",
                "    buffer(1) = c_null_char",
                f"    bmi_status = {call}",
                f"    {text} = text_of(buffer)",
            ]
        elif "pointer_out" in kinds:
            lines += [
                "    type(c_ptr) :: place",
                "    integer(c_int) :: count",
                "    count = 0",
                f"    bmi_status = {call}",
                "    if (bmi_status == BMI_SUCCESS) call c_f_pointer(place, dest_ptr, [count])",
            ]
        else:
            if {"indices"} < kinds and kinds & {"values_in", "values_out"}:
                values = next(a.name for a in shown if a.kind in ("values_in", "values_out"))
                lines += [
                    f"    if (size(inds) /= size({values})) then",
                    f'      bmi_status = refused("{name}: inds and {values} differ in size")',
                    "      return",
                    "    end if",
                ]
            wanted = {"get_grid_shape": "2", "get_grid_spacing": "2", "get_grid_origin": "2"}.get(name)
            axis = {"get_grid_x": 2, "get_grid_y": 1}.get(name)
            target = next((a.name for a in shown if a.kind in ("ints_out", "doubles_out")), "")
            if axis:
                lines += [
                    "    integer(c_int) :: extent(2)",
                    "    bmi_status = c_get_grid_shape(self%model, grid, extent)",
                    "    if (bmi_status /= BMI_SUCCESS) return",
                ]
                wanted = f"extent({axis})"
            if wanted:
                lines += [
                    f"    if (size({target}) /= {wanted}) then",
                    f'      bmi_status = refused("{name}: {target} is of another size than the grid")',
                    "      return",
                    "    end if",
                ]
            lines.append(f"    bmi_status = {call}")
        lines += [f"  end function {name}", ""]
    return "\n".join(lines)

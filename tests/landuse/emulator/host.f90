! Calls the procedures of the Fortran module that the example does not: host CONFIG; stops with 1 where one is wrong.
program host
  use, intrinsic :: iso_fortran_env, only: error_unit
  use earthsr_bmi
  implicit none
  type(bmi_earthsr) :: model
  character(len=1024) :: config
  character(len=BMI_MAX_COMPONENT_NAME), pointer :: component
  character(len=BMI_MAX_UNITS_NAME) :: text
  character(len=*), parameter :: codes = "land_surface__land_use_class_code"
  character(len=*), parameter :: urban = "land_surface_urban__area_fraction"
  integer :: fine, coarse, count, shape_of_map(2)
  integer, allocatable :: whole(:)
  real, allocatable :: single(:)
  double precision, allocatable :: double(:)
  double precision :: time, latest, longest
  real, pointer :: wrong(:)

  call get_command_argument(1, config)
  call refused(model%update(), "NULL")
  call done(earthsr_bmi_set_threads(1))
  call refused(model%get_component_name(component), "not initialised")
  call done(model%initialize(config))
  call refused(model%initialize(config), "initialised already")
  call done(model%get_component_name(component))
  if (component /= "earthsr land-use emulator") error stop "component"
  call done(model%get_input_item_count(count))
  call done(model%get_grid_size(0, fine))
  call done(model%get_grid_size(1, coarse))
  allocate (whole(fine), single(coarse), double(coarse))
  call done(model%get_value(codes, whole))
  if (minval(whole) < 0 .or. maxval(whole) > 255) error stop "codes"
  call refused(model%get_value(codes, whole(:3)), "3 items")
  call refused(model%get_value(codes, single), "items")
  call refused(model%get_value_ptr(urban, wrong), "it holds double, asked for is float")
  single = 0.25
  call done(model%set_value(urban, single))
  call done(model%set_value_at_indices(urban, [2, 0], [0.5d0, 0.75d0]))
  call refused(model%set_value_at_indices(urban, [2, 0], [0.5d0]), "differ in size")
  call done(model%get_value(urban, double))
  if (any(double(:4) /= [0.75d0, 0.25d0, 0.5d0, 0.25d0])) error stop "values"
  call done(model%get_value_at_indices(urban, double(:2), [2, 1]))
  if (any(double(:2) /= [0.5d0, 0.25d0])) error stop "values at indices"
  ! Every second item: the compiler packs what does not lie side by side.
  double = 0.125d0
  call refused(model%set_value(urban, double(::2)), "items")
  call done(model%get_var_units("land_surface_grid_cell__area", text))
  if (text /= "km2") error stop "units"
  call done(model%get_var_type(codes, text))
  if (text /= "unsigned char") error stop "type"
  call done(model%get_grid_type(1, text))
  if (text /= "uniform_rectilinear") error stop "grid type"
  call done(model%get_grid_shape(1, shape_of_map))
  if (product(shape_of_map) /= coarse) error stop "shape"
  call refused(model%get_grid_x(1, double), "another size")
  call done(model%get_grid_x(1, double(:shape_of_map(2))))
  call refused(model%get_grid_face_count(0, count), "uniform_rectilinear")
  call done(model%get_time_units(text))
  if (text /= "year") error stop "time units"
  call done(model%get_start_time(time))
  if (time /= 1993) error stop "time"
  call refused(model%update(), "was not set")
  call done(model%set_deadline(10d0))
  call done(model%get_step_seconds(latest, longest, count))
  if (count /= 0) error stop "late"
  call done(model%finalize())
  call refused(model%update(), "NULL")

contains

  subroutine done(bmi_status)
    integer, intent(in) :: bmi_status
    if (bmi_status == BMI_SUCCESS) return
    write (error_unit, "(a)") earthsr_bmi_last_error()
    error stop "a call failed"
  end subroutine done

  subroutine refused(bmi_status, part)
    integer, intent(in) :: bmi_status
    character(len=*), intent(in) :: part
    if (bmi_status == BMI_FAILURE .and. index(earthsr_bmi_last_error(), part) > 0) return
    write (error_unit, "(3a)") part, " expected, got: ", earthsr_bmi_last_error()
    error stop "a call was not refused as it should be"
  end subroutine refused
end program host

! A toy land model in Fortran that owns time and drives the emulator of earthsr, once a year, in its own process.
!
!   land CONFIG.yaml FRACTIONS.bin MAPS.bin
!
! FRACTIONS.bin is what examples/write_fractions.py writes. Each year the model hands the year's fractions over, lets the
! emulator make the map, and takes the areas of classes for its own bookkeeping: how bright the land is. The year's
! classes, rows from south to north, go to MAPS.bin. Nothing is copied: fractions are read into the emulator's own
! memory, and classes and areas are read where they lie.
module told
  use, intrinsic :: iso_fortran_env, only: error_unit
  use earthsr_bmi
  implicit none
contains
  ! End with what the emulator says of a call that failed.
  subroutine expect(bmi_status)
    integer, intent(in) :: bmi_status
    if (bmi_status == BMI_SUCCESS) return
    write (error_unit, "(2a)") "land: ", earthsr_bmi_last_error()
    stop 1
  end subroutine expect

  subroutine log_line(level, text)
    integer, intent(in) :: level
    character(len=*), intent(in) :: text
    write (error_unit, "(3a)") "emulator", merge(", warning: ", ":          ", level >= 30), text
  end subroutine log_line

  double precision function brightness(name)
    character(len=*), intent(in) :: name
    brightness = 0.20d0
    if (index(name, "forest") > 0) brightness = 0.12d0
    if (index(name, "urban") > 0) brightness = 0.15d0
    if (index(name, "sparse") > 0) brightness = 0.30d0
  end function brightness
end module told

program land
  use, intrinsic :: iso_c_binding, only: c_int8_t
  use told
  implicit none
  type(bmi_earthsr) :: model
  character(len=1024) :: words(3)
  character(len=BMI_MAX_VAR_NAME), pointer :: inputs(:), outputs(:)
  integer(c_int8_t), pointer :: flat(:), map(:, :)
  double precision, pointer :: values(:)
  double precision :: now, end_time, step, area, bright
  integer :: i, grid, fractions, maps, shape_of_map(2)

  if (command_argument_count() /= 3) then
    write (error_unit, "(a)") "usage: land CONFIG.yaml FRACTIONS.bin MAPS.bin"
    stop 2
  end if
  do i = 1, 3
    call get_command_argument(i, words(i))
  end do
  open (newunit=fractions, file=trim(words(2)), access="stream", form="unformatted", status="old", action="read")
  open (newunit=maps, file=trim(words(3)), access="stream", form="unformatted", status="replace", action="write")

  call expect(earthsr_bmi_set_log(log_line))
  call expect(model%initialize(trim(words(1))))
  call expect(model%get_input_var_names(inputs))
  call expect(model%get_output_var_names(outputs))
  call expect(model%get_grid_shape(0, shape_of_map))
  call expect(model%get_value_ptr("land_surface__land_use_class_code", flat))
  map(1:shape_of_map(2), 1:shape_of_map(1)) => flat

  call expect(model%get_current_time(now))
  call expect(model%get_end_time(end_time))
  call expect(model%get_time_step(step))
  do while (now /= end_time)
    do i = 1, size(inputs)
      call expect(model%get_value_ptr(inputs(i), values))
      read (fractions) values
    end do
    call expect(model%update())
    call expect(model%get_current_time(now))
    area = 0
    bright = 0
    do i = 1, size(outputs)
      call expect(model%get_var_grid(outputs(i), grid))
      if (grid /= 1 .or. index(outputs(i), "water") > 0) cycle
      call expect(model%get_value_ptr(outputs(i), values))
      area = area + sum(values)
      bright = bright + sum(values)*brightness(outputs(i))
    end do
    print "(i0, a, i0, a, f6.4)", nint(now), ": ", nint(area), " km2 of land, albedo ", bright/area
    write (maps) map
  end do
  call expect(model%finalize())
end program land

! Couples a year for each line of standard input, and says how many seconds it took, by the clock and of processors, and
! how many of the former Python spent on the year: host CONFIG FRACTIONS
program host
  use, intrinsic :: iso_c_binding, only: c_int8_t
  use, intrinsic :: iso_fortran_env, only: error_unit, int64
  use earthsr_bmi
  implicit none
  type(bmi_earthsr) :: land
  character(len=1024) :: config, path, line
  character(len=BMI_MAX_VAR_NAME), pointer :: names(:)
  integer(c_int8_t), pointer :: codes(:)
  double precision, allocatable :: fractions(:, :)
  integer :: coarse, i, file, status, late
  integer(int64) :: began, ended, rate, checksum
  double precision :: cpu_before, cpu_after, year, longest

  call get_command_argument(1, config)
  call get_command_argument(2, path)
  call expect(land%initialize(config))
  call expect(land%get_input_var_names(names))
  call expect(land%get_grid_size(1, coarse))
  call expect(land%get_value_ptr("land_surface__land_use_class_code", codes))
  allocate (fractions(coarse, size(names)))
  open (newunit=file, file=trim(path), access="stream", form="unformatted", status="old", action="read")
  do
    read (*, "(a)", iostat=status) line
    if (status /= 0) exit
    read (file, iostat=status) fractions
    if (status /= 0) then
      rewind (file)
      read (file) fractions
    end if
    call cpu_time(cpu_before)
    call system_clock(began, rate)
    do i = 1, size(names)
      call expect(land%set_value(names(i), fractions(:, i)))
    end do
    call expect(land%update())
    checksum = sum(iand(int(codes, int64), 255_int64))
    call system_clock(ended)
    call cpu_time(cpu_after)
    call expect(land%get_step_seconds(year, longest, late))
    print "(3es14.6, 1x, i0)", dble(ended - began)/rate, cpu_after - cpu_before, year, checksum
    flush (6)
  end do
  call expect(land%finalize())

contains

  subroutine expect(bmi_status)
    integer, intent(in) :: bmi_status
    if (bmi_status == BMI_SUCCESS) return
    write (error_unit, "(2a)") "host: ", earthsr_bmi_last_error()
    stop 1
  end subroutine expect
end program host

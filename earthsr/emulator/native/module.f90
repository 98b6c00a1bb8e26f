! The emulator of earthsr behind the Basic Model Interface, in the shape of bmi-fortran (module bmif_2_0).
!
! Compile it with the compiler of the host. Procedures and arguments have bmi-fortran's names; bytes (integer(c_int8_t),
! as which classes are held) are added to its types, and there a code of 255, no class, reads -1. Grids have shape
! (rows, columns) with columns side by side: a pointer of bounds (columns, rows) is a map without a copy,
!   integer(c_int8_t), pointer :: flat(:), map(:, :)
!   status = model%get_value_ptr("land_surface__land_use_class_code", flat)
!   map(1:columns, 1:rows) => flat
! and indices count from 0, as everywhere in the interface.
module earthsr_bmi
  use, intrinsic :: iso_c_binding
  implicit none
  private

  integer, parameter, public :: BMI_SUCCESS = 0, BMI_FAILURE = 1
  integer, parameter, public :: BMI_MAX_COMPONENT_NAME = 2048, BMI_MAX_VAR_NAME = 2048
  integer, parameter, public :: BMI_MAX_TYPE_NAME = 2048, BMI_MAX_UNITS_NAME = 2048

  public :: earthsr_bmi_last_error, earthsr_bmi_set_log, earthsr_bmi_set_threads

  type, public :: bmi_earthsr
    private
    type(c_ptr) :: model = c_null_ptr
    character(len=BMI_MAX_COMPONENT_NAME), pointer :: component => null()
    character(len=BMI_MAX_VAR_NAME), pointer :: inputs(:) => null(), outputs(:) => null()
  contains
!@bindings
  end type bmi_earthsr

  abstract interface
    ! level 10 to 50; text is of so many characters
    subroutine earthsr_log(level, text)
      integer, intent(in) :: level
      character(len=*), intent(in) :: text
    end subroutine earthsr_log
  end interface
  public :: earthsr_log
  procedure(earthsr_log), pointer :: log_of_host => null()

  interface
!@interfaces
    function c_new() bind(c, name="earthsr_bmi_new") result(model)
      import
      type(c_ptr) :: model
    end function c_new
    subroutine c_free(model) bind(c, name="earthsr_bmi_free")
      import
      type(c_ptr), value :: model
    end subroutine c_free
    function c_last_error() bind(c, name="earthsr_bmi_last_error") result(text)
      import
      type(c_ptr) :: text
    end function c_last_error
    subroutine c_refuse(text) bind(c, name="earthsr_bmi_refuse")
      import
      character(kind=c_char), intent(in) :: text(*)
    end subroutine c_refuse
    function c_set_log(log, context) bind(c, name="earthsr_bmi_set_log") result(bmi_status)
      import
      type(c_funptr), value :: log
      type(c_ptr), value :: context
      integer(c_int) :: bmi_status
    end function c_set_log
    function c_set_threads(count) bind(c, name="earthsr_bmi_set_threads") result(bmi_status)
      import
      integer(c_int), value :: count
      integer(c_int) :: bmi_status
    end function c_set_threads
    function c_strlen(text) bind(c, name="strlen") result(length)
      import
      type(c_ptr), value :: text
      integer(c_size_t) :: length
    end function c_strlen
  end interface

contains

  ! Text of the last failure in this thread.
  function earthsr_bmi_last_error() result(text)
    character(len=:), allocatable :: text
    text = text_at(c_last_error())
  end function earthsr_bmi_last_error

  ! Threads of all computations; before the first initialize.
  function earthsr_bmi_set_threads(count) result(bmi_status)
    integer, intent(in) :: count
    integer :: bmi_status
    bmi_status = c_set_threads(count)
  end function earthsr_bmi_set_threads

  ! Take the log.
  function earthsr_bmi_set_log(log) result(bmi_status)
    procedure(earthsr_log) :: log
    integer :: bmi_status
    log_of_host => log
    bmi_status = c_set_log(c_funloc(pass_log), c_null_ptr)
  end function earthsr_bmi_set_log

  subroutine pass_log(level, text, context) bind(c)
    integer(c_int), value :: level
    type(c_ptr), value :: text, context
    if (c_associated(context)) return
    if (associated(log_of_host)) call log_of_host(level, text_at(text))
  end subroutine pass_log

  function text_at(place) result(text)
    type(c_ptr), intent(in) :: place
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    integer :: i
    call c_f_pointer(place, letters, [c_strlen(place)])
    allocate (character(len=size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function text_at

  function text_of(buffer) result(text)
    character(kind=c_char), intent(in), target :: buffer(*)
    character(len=:), allocatable :: text
    text = text_at(c_loc(buffer))
  end function text_of

  function refused(text) result(bmi_status)
    character(len=*), intent(in) :: text
    integer :: bmi_status
    call c_refuse(text//c_null_char)
    bmi_status = BMI_FAILURE
  end function refused

  function initialize(self, config_file) result(bmi_status)
    class(bmi_earthsr), intent(inout) :: self
    character(len=*), intent(in) :: config_file
    integer :: bmi_status
    if (.not. c_associated(self%model)) self%model = c_new()
    bmi_status = c_initialize(self%model, trim(config_file)//c_null_char)
    if (bmi_status == BMI_SUCCESS) bmi_status = keep_names(self)
  end function initialize

  ! One of several ranks, from 0, that make the region together, each in its own process.
  function initialize_share(self, config_file, rank, ranks) result(bmi_status)
    class(bmi_earthsr), intent(inout) :: self
    character(len=*), intent(in) :: config_file
    integer, intent(in) :: rank, ranks
    integer :: bmi_status
    if (.not. c_associated(self%model)) self%model = c_new()
    bmi_status = c_initialize_share(self%model, trim(config_file)//c_null_char, rank, ranks)
    if (bmi_status == BMI_SUCCESS) bmi_status = keep_names(self)
  end function initialize_share

  function keep_names(self) result(bmi_status)
    class(bmi_earthsr), intent(inout) :: self
    integer :: bmi_status
    character(kind=c_char) :: buffer(BMI_MAX_COMPONENT_NAME)
    buffer(1) = c_null_char
    bmi_status = c_get_component_name(self%model, buffer)
    allocate (self%component)
    self%component = text_of(buffer)
    if (bmi_status == BMI_SUCCESS) bmi_status = names_of(self, .true., self%inputs)
    if (bmi_status == BMI_SUCCESS) bmi_status = names_of(self, .false., self%outputs)
  end function keep_names

  function finalize(self) result(bmi_status)
    class(bmi_earthsr), intent(inout) :: self
    integer :: bmi_status
    bmi_status = BMI_SUCCESS
    if (.not. c_associated(self%model)) return
    bmi_status = c_finalize(self%model)
    if (bmi_status /= BMI_SUCCESS) return
    call c_free(self%model)
    self%model = c_null_ptr
    if (associated(self%component)) deallocate (self%component)
    if (associated(self%inputs)) deallocate (self%inputs)
    if (associated(self%outputs)) deallocate (self%outputs)
  end function finalize

  function names_of(self, is_input, names) result(bmi_status)
    class(bmi_earthsr), intent(in) :: self
    logical, intent(in) :: is_input
    character(len=BMI_MAX_VAR_NAME), pointer, intent(out) :: names(:)
    integer :: bmi_status
    integer(c_int) :: count
    integer :: i
    character(kind=c_char), allocatable, target :: letters(:, :)
    type(c_ptr), allocatable :: places(:)
    if (is_input) then
      bmi_status = c_get_input_item_count(self%model, count)
    else
      bmi_status = c_get_output_item_count(self%model, count)
    end if
    if (bmi_status /= BMI_SUCCESS) return
    allocate (letters(BMI_MAX_VAR_NAME, count), places(count), names(count))
    do i = 1, count
      places(i) = c_loc(letters(1, i))
    end do
    if (is_input) then
      bmi_status = c_get_input_var_names(self%model, places)
    else
      bmi_status = c_get_output_var_names(self%model, places)
    end if
    if (bmi_status /= BMI_SUCCESS) return
    do i = 1, count
      names(i) = text_at(places(i))
    end do
  end function names_of

  function get_component_name(self, name) result(bmi_status)
    class(bmi_earthsr), intent(in) :: self
    character(len=*), pointer, intent(out) :: name
    integer :: bmi_status
    name => self%component
    bmi_status = merge(BMI_SUCCESS, BMI_FAILURE, associated(self%component))
    if (bmi_status /= BMI_SUCCESS) bmi_status = refused("get_component_name: is not initialised; call initialize first")
  end function get_component_name

  function get_input_var_names(self, names) result(bmi_status)
    class(bmi_earthsr), intent(in) :: self
    character(len=*), pointer, intent(out) :: names(:)
    integer :: bmi_status
    names => self%inputs
    bmi_status = merge(BMI_SUCCESS, BMI_FAILURE, associated(self%inputs))
    if (bmi_status /= BMI_SUCCESS) bmi_status = refused("get_input_var_names: is not initialised; call initialize first")
  end function get_input_var_names

  function get_output_var_names(self, names) result(bmi_status)
    class(bmi_earthsr), intent(in) :: self
    character(len=*), pointer, intent(out) :: names(:)
    integer :: bmi_status
    names => self%outputs
    bmi_status = merge(BMI_SUCCESS, BMI_FAILURE, associated(self%outputs))
    if (bmi_status /= BMI_SUCCESS) bmi_status = refused("get_output_var_names: is not initialised; call initialize first")
  end function get_output_var_names

!@procedures
end module earthsr_bmi
